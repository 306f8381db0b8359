// Runs a script of host commands on the accelerator, and prints what it reads as JSON. Usage: Vvta SCRIPT
//
// A line of the script is one of
//   memory BYTES LATENCY OUTSTANDING   the memory, which is all zeros; the first line
//   load ADDRESS PATH                  a file into memory
//   write OFFSET VALUE                 a register of 32 bits
//   run CYCLES                         until the interrupt, at most so long
//   read NAME OFFSET                   a register of 32 bits, into the result
//   save ADDRESS BYTES PATH            memory into a file
// with numbers in decimal. The result is a list of the runs: clock cycles, seconds of processor time, registers that were
// read then.

#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "machine.h"

namespace {

struct Run {
  std::uint64_t cycles;
  double seconds;
  std::vector<std::pair<std::string, std::uint32_t>> registers;
};

void load(Machine& machine, std::uint64_t address, const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("cannot read " + path);
  const auto nbytes = static_cast<std::uint64_t>(file.tellg());
  file.seekg(0);
  file.read(reinterpret_cast<char*>(machine.dram().at(address, nbytes)), static_cast<std::streamsize>(nbytes));
}

void save(Machine& machine, std::uint64_t address, std::uint64_t nbytes, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(machine.dram().at(address, nbytes)), static_cast<std::streamsize>(nbytes));
  if (!file) throw std::runtime_error("cannot write " + path);
}

double processor_seconds() {
  std::timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

Run timed_run(Machine& machine, std::uint64_t limit) {
  const std::uint64_t before = machine.cycles();
  const double begin = processor_seconds();
  machine.run(limit);
  return {machine.cycles() - before, processor_seconds() - begin, {}};
}

std::vector<Run> execute(std::istream& script) {
  VerilatedContext context;
  std::unique_ptr<Machine> machine;
  std::vector<Run> runs;
  for (std::string line; std::getline(script, line);) {
    std::istringstream words(line);
    std::string command, text;
    std::uint64_t first = 0, second = 0;
    words >> command;
    if (command == "memory") {
      Timing timing;
      words >> first >> timing.latency >> timing.outstanding;
      machine = std::make_unique<Machine>(context, first, timing);
    } else if (!machine) {
      throw std::runtime_error("the first line must be the memory");
    } else if (command == "load" && words >> first && std::getline(words >> std::ws, text)) {
      load(*machine, first, text);
    } else if (command == "write" && words >> first >> second) {
      machine->write(static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(second));
    } else if (command == "run" && words >> first) {
      runs.push_back(timed_run(*machine, first));
    } else if (command == "read" && !runs.empty() && words >> text >> first) {
      runs.back().registers.emplace_back(text, machine->read(static_cast<std::uint32_t>(first)));
    } else if (command == "save" && words >> first >> second && std::getline(words >> std::ws, text)) {
      save(*machine, first, second, text);
    } else {
      throw std::runtime_error("not a command: " + line);
    }
  }
  return runs;
}

void print(const std::vector<Run>& runs) {
  std::printf("[");
  for (std::size_t number = 0; number < runs.size(); ++number) {
    const Run& run = runs[number];
    std::printf("%s{\"cycles\": %llu, \"seconds\": %.9f, \"registers\": {", number ? ", " : "",
                static_cast<unsigned long long>(run.cycles), run.seconds);
    for (std::size_t k = 0; k < run.registers.size(); ++k)
      std::printf("%s\"%s\": %u", k ? ", " : "", run.registers[k].first.c_str(), run.registers[k].second);
    std::printf("}}");
  }
  std::printf("]\n");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 2) throw std::runtime_error("usage: Vvta SCRIPT");
    std::ifstream script(argv[1]);
    if (!script) throw std::runtime_error(std::string("cannot read ") + argv[1]);
    print(execute(script));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
