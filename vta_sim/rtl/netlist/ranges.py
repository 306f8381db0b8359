"""How many bits of a word really vary: what is known to be an extension needs none."""

from __future__ import annotations

from vta_sim.rtl.netlist.words import Word


class Ranges:
    """Remembers what it found out. Words must be asked for in the order in which they were made."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}

    def __call__(self, word: Word) -> tuple[int, int]:
        """(u, s): the word is below ``2**u``, and equals its low s bits sign-extended."""
        found = self._known.get(word.number)
        if found is None:
            found = self._known[word.number] = self._find(word)
        return found

    def _find(self, word: Word) -> tuple[int, int]:
        width, args = word.width, word.args
        unsigned, signed = width, width
        match word.op:
            case "const":
                unsigned = word.param.bit_length()
                value = word.param - (1 << width) if word.param >> (width - 1) else word.param
                signed = (value if value >= 0 else ~value).bit_length() + 1
            case "zext":
                unsigned = self(args[0])[0]
            case "sext":
                signed = self(args[0])[1]
            case "add" | "sub":
                one, other = self(args[0]), self(args[1])
                signed = max(one[1], other[1]) + 1
                if word.op == "add":
                    unsigned = max(one[0], other[0]) + 1
            case "mul":
                one, other = self(args[0]), self(args[1])
                unsigned, signed = one[0] + other[0], one[1] + other[1]
            case "and":
                unsigned = min(self(args[0])[0], self(args[1])[0])
                signed = max(self(args[0])[1], self(args[1])[1])
            case "or" | "xor":
                one, other = self(args[0]), self(args[1])
                unsigned, signed = max(one[0], other[0]), max(one[1], other[1])
            case "not":
                signed = self(args[0])[1]
            case "select":
                one, other = self(args[1]), self(args[2])
                unsigned, signed = max(one[0], other[0]), max(one[1], other[1])
            case "assign":
                values = [self(args[0]), *(self(value) for value in args[2::2])]
                unsigned, signed = max(each[0] for each in values), max(each[1] for each in values)
            case "lshr" | "udiv":
                unsigned = self(args[0])[0]
            case "urem":
                unsigned = min(self(args[0])[0], self(args[1])[0])
            case "ashr":
                signed = self(args[0])[1]
        unsigned = min(unsigned, width)
        # Below 2**(width - 1) both readings agree.
        signed = min(signed, width, unsigned + 1)
        return unsigned, signed
