// A queue of at most N items, N a power of two, that never allocates.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

template <typename Item, std::size_t N>
class Ring {
  static_assert((N & (N - 1)) == 0, "N must be a power of two");

 public:
  bool empty() const { return begin_ == end_; }
  bool full() const { return end_ - begin_ == N; }
  Item& front() { return items_[begin_ % N]; }
  void push(const Item& item) { items_[end_++ % N] = item; }
  void pop() { ++begin_; }

 private:
  std::array<Item, N> items_{};
  std::uint64_t begin_ = 0;
  std::uint64_t end_ = 0;
};
