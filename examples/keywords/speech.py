"""Words spoken by eSpeak NG, as `espeakng-loader` brings it: the library and the data of its voices (GPL 3).

A voice is an accent of English with a variant, which sets formants, pitch and breath. Several variants of eSpeak NG
share a name and little more than a number tells them apart (steph, steph2, steph3): here such a family is on one side.
"""

from __future__ import annotations

import ctypes
import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE: Final = 16_000
"""Samples per second of what is spoken here, as in the Speech Commands data set."""

ACCENTS: Final = (
    "en", "en-us", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us-nyc",
)  # fmt: skip
"""Britain, America, the Caribbean, Scotland, Lancaster, the West Midlands, Received Pronunciation, New York."""

TRAINING_VOICES: Final = (
    "Alex", "Alicia", "Andrea", "Andy", "Denis", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee", "Mario",
    "Michael", "Nguyen", "RicishayMax", "RicishayMax2", "RicishayMax3", "anika", "announcer", "antonio", "aunty",
    "benjamin", "boris", "david", "ed", "f1", "f2", "f4", "f5", "grandpa", "gustave", "ian", "iven", "iven2", "iven3",
    "iven4", "john", "klatt", "klatt2", "klatt3", "klatt6", "m1", "m3", "m4", "m6", "m7", "marcelo", "max", "michel",
    "norbert", "pablo", "paul", "pedro", "rob", "robert", "shelby", "steph", "steph2", "steph3", "travis", "victor",
)  # fmt: skip
HELD_OUT_VOICES: Final = (
    "Annie", "Diogo", "Mike", "adam", "belinda", "edward", "edward2", "f3", "grandma", "linda", "m2", "m5", "m8",
    "miguel", "mike2", "quincy", "sandro", "zac",
)  # fmt: skip
"""Variants meant to sound like people; others whisper, croak or are robots. Reed and caleb would do, but their breath
comes from the C library's `rand`, which is not ours to seed."""

# speak_lib.h of eSpeak NG
_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Speaker:
    """eSpeak NG in its first state: what it says depends on nothing but what it has been asked to say.

    The library has one state for a process, which no call resets (the flutter of a voice goes on where the last word
    left it). So each speaker loads a copy of the library, which stays until the process ends. Raises ImportError where
    espeakng-loader is missing.
    """

    def __init__(self) -> None:
        if find_spec("espeakng_loader") is None:
            raise ImportError("Speech is made with eSpeak NG: pip install espeakng-loader")
        import espeakng_loader

        self._data = Path(espeakng_loader.get_data_path())
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self._library = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), folder))
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(self._data).encode(), _DO_NOT_EXIT)
        if self._rate <= 0:
            raise RuntimeError(f"eSpeak NG must start with the data in {self._data}, it answered {self._rate}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._parts: list[NDArray[np.int16]] = []
        self._callback = _Callback(self._keep)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, accent: str, variant: str, *, rate: int, pitch: int, melody: int) -> NDArray[np.float32]:
        """float32 [samples] at SAMPLE_RATE; 1 is full scale.

        accent: a language of eSpeak NG, such as en-us. variant: a file of its folder `voices/!v`. rate: 80..450 words
        per minute. pitch: 0..100 of its range. melody: 0..100, how much the pitch moves. Raises ValueError.
        """
        for name, value, low, high in (("Rate", rate, 80, 450), ("Pitch", pitch, 0, 100), ("Melody", melody, 0, 100)):
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low}..{high}, not {value}")
        if not (self._data / "voices" / "!v" / variant).is_file():  # eSpeak NG would speak without it
            raise ValueError(f"Variant must be one of eSpeak NG's, not {variant!r}")
        if self._library.espeak_SetVoiceByName(f"{accent}+{variant}".encode()) != 0:
            raise ValueError(f"Accent must be a language of eSpeak NG, not {accent!r}")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, melody)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._parts.clear()
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        if (error := self._library.espeak_Synth(encoded, size, 0, 0, 0, _UTF8, None, None)) != 0:
            raise RuntimeError(f"eSpeak NG must speak {text!r}, it answered {error}")
        spoken = np.concatenate([np.zeros(0, np.int16), *self._parts])
        return resampled(spoken / np.float32(1 << 15), self._rate, SAMPLE_RATE)

    def _keep(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int | None) -> int:
        if count > 0:  # the last call has none
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def resampled(wave: NDArray[np.floating], old: int, new: int) -> NDArray[np.float32]:
    """float32 [samples * new // old]: a wave of `old` samples per second at `new`, its spectrum cut or filled up."""
    count = len(wave) * new // old
    if count == 0:
        return np.zeros(0, np.float32)
    spectrum = np.fft.rfft(wave)[: count // 2 + 1]
    return (np.fft.irfft(spectrum, count) * (count / len(wave))).astype(np.float32)
