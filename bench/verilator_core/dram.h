// The memory behind the AXI4 master port: a flat array that answers as vta_sim.rtl.axi_memory does without pauses.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "ring.h"

struct Timing {
  std::uint64_t latency = 0;      // cycles between an address and its first word, or a last word and its response
  std::uint64_t outstanding = 16;  // bursts of a direction that are accepted and not yet answered to the end
};

// `Top` is a verilated accelerator. Call `step` in each cycle, before its clock edge and with all signals settled, and
// `drive` after the edge: what the memory shows changes with the clock.
template <typename Top>
class Dram {
 public:
  Dram(std::uint64_t bytes, Timing timing) : bytes_(bytes), timing_(timing) {
    if (timing.outstanding > kBursts) throw std::invalid_argument("too many outstanding bursts");
  }

  std::uint8_t* at(std::uint64_t address, std::uint64_t nbytes) {
    if (address > bytes_.size() || nbytes > bytes_.size() - address)
      throw std::out_of_range("no memory at address " + std::to_string(address));
    return bytes_.data() + address;
  }

  void step(const Top& top) {
    ++cycle_;
    step_reads(top);
    step_writes(top);
  }

  void drive(Top& top) {
    top.m_axi_arready = ar_ready_;
    top.m_axi_rvalid = r_valid_;
    if (r_valid_) {
      const Read& burst = reads_.front();
      std::memcpy(&top.m_axi_rdata, at(burst.address, kWord), kWord);
      top.m_axi_rid = burst.id;
      top.m_axi_rlast = burst.words == 1;
    }
    top.m_axi_awready = aw_ready_;
    top.m_axi_wready = w_ready_;
    top.m_axi_bvalid = b_valid_;
    if (b_valid_) top.m_axi_bid = responses_.front().id;
  }

 private:
  static constexpr std::size_t kBursts = 1024;
  static constexpr std::size_t kBurstWords = 16;
  static constexpr std::size_t kWord = sizeof(Top::m_axi_rdata);

  struct Read {
    std::uint64_t due;
    std::uint64_t address;
    unsigned words;
    unsigned id;
  };
  struct Address {
    std::uint64_t address;
    unsigned words;
    unsigned id;
  };
  struct Word {
    std::array<std::uint8_t, kWord> data;
    std::uint64_t strobes;
  };
  struct Response {
    std::uint64_t due;
    unsigned id;
  };

  void step_reads(const Top& top) {
    if (r_valid_ && top.m_axi_rready) {
      Read& burst = reads_.front();
      r_valid_ = false;
      burst.address += kWord;
      if (--burst.words == 0) {
        reads_.pop();
        --unfinished_;
      }
    }
    if (ar_ready_ && top.m_axi_arvalid) {
      reads_.push({cycle_ + timing_.latency, top.m_axi_araddr, top.m_axi_arlen + 1u, top.m_axi_arid});
      ++unfinished_;
    }
    ar_ready_ = unfinished_ < timing_.outstanding;
    if (!r_valid_) r_valid_ = !reads_.empty() && reads_.front().due <= cycle_;
  }

  void step_writes(const Top& top) {
    if (b_valid_ && top.m_axi_bready) {
      responses_.pop();
      b_valid_ = false;
      --addressed_;
      --filled_;
    }
    if (aw_ready_ && top.m_axi_awvalid) {
      addresses_.push({top.m_axi_awaddr, top.m_axi_awlen + 1u, top.m_axi_awid});
      ++addressed_;
    }
    if (w_ready_ && top.m_axi_wvalid) {
      Word word;
      std::memcpy(word.data.data(), &top.m_axi_wdata, kWord);
      word.strobes = top.m_axi_wstrb;
      words_.push(word);
      filled_ += top.m_axi_wlast;
    }
    if (!addresses_.empty() && !words_.empty()) place();
    aw_ready_ = addressed_ < timing_.outstanding;
    w_ready_ = filled_ < timing_.outstanding && !words_.full();
    if (!b_valid_) b_valid_ = !responses_.empty() && responses_.front().due <= cycle_;
  }

  // The oldest word meets the oldest address: one in a cycle.
  void place() {
    Address& burst = addresses_.front();
    const Word& word = words_.front();
    std::uint8_t* target = at(burst.address, kWord);
    for (std::size_t lane = 0; lane < kWord; ++lane)
      if (word.strobes >> lane & 1) target[lane] = word.data[lane];
    words_.pop();
    burst.address += kWord;
    if (--burst.words == 0) {
      responses_.push({cycle_ + timing_.latency, burst.id});
      addresses_.pop();
    }
  }

  std::vector<std::uint8_t> bytes_;
  Timing timing_;
  std::uint64_t cycle_ = 0;
  Ring<Read, kBursts> reads_;
  std::uint64_t unfinished_ = 0;
  Ring<Address, kBursts> addresses_;
  Ring<Word, kBursts * kBurstWords> words_;
  Ring<Response, kBursts> responses_;
  std::uint64_t addressed_ = 0;
  std::uint64_t filled_ = 0;
  bool ar_ready_ = false, aw_ready_ = false, w_ready_ = false;
  bool r_valid_ = false, b_valid_ = false;
};
