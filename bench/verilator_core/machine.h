// The verilated accelerator with its memory and a host at its register port.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "Vvta.h"
#include "dram.h"
#include "verilated.h"

class Machine {
 public:
  Machine(VerilatedContext& context, std::uint64_t memory_bytes, Timing timing)
      : top_(&context), dram_(memory_bytes, timing) {
    top_.eval();
  }
  ~Machine() { top_.final(); }

  Dram<Vvta>& dram() { return dram_; }
  std::uint64_t cycles() const { return cycles_; }

  void write(std::uint32_t offset, std::uint32_t value) {
    bool addressed = false, sent = false, answered = false;
    top_.s_axi_awaddr = offset;
    top_.s_axi_wdata = value;
    top_.s_axi_wstrb = 0xF;
    top_.s_axi_bready = 1;
    for (unsigned waited = 0; !answered; ++waited) {
      if (waited == kPatience) throw std::runtime_error("a register write is not answered");
      top_.s_axi_awvalid = !addressed;
      top_.s_axi_wvalid = !sent;
      top_.eval();
      addressed |= top_.s_axi_awvalid && top_.s_axi_awready;
      sent |= top_.s_axi_wvalid && top_.s_axi_wready;
      answered = top_.s_axi_bvalid;
      tick();
    }
    top_.s_axi_awvalid = top_.s_axi_wvalid = top_.s_axi_bready = 0;
    top_.eval();
  }

  std::uint32_t read(std::uint32_t offset) {
    bool addressed = false;
    top_.s_axi_araddr = offset;
    top_.s_axi_rready = 1;
    for (unsigned waited = 0; waited < kPatience; ++waited) {
      top_.s_axi_arvalid = !addressed;
      top_.eval();
      addressed |= top_.s_axi_arvalid && top_.s_axi_arready;
      const bool answered = top_.s_axi_rvalid;
      const std::uint32_t value = top_.s_axi_rdata;
      tick();
      if (answered) {
        top_.s_axi_arvalid = top_.s_axi_rready = 0;
        top_.eval();
        return value;
      }
    }
    throw std::runtime_error("a register read is not answered");
  }

  // Clock until the interrupt rises.
  void run(std::uint64_t limit) {
    for (std::uint64_t end = cycles_ + limit; !top_.irq; tick())
      if (cycles_ == end) throw std::runtime_error("the interrupt does not come");
  }

 private:
  static constexpr unsigned kPatience = 1000;

  // One cycle, from settled signals to settled signals: inputs change behind the edge, as registers do.
  void tick() {
    dram_.step(top_);
    top_.clk = 1;
    top_.eval();
    dram_.drive(top_);
    top_.clk = 0;
    top_.eval();
    ++cycles_;
  }

  Vvta top_;
  Dram<Vvta> dram_;
  std::uint64_t cycles_ = 0;
};
