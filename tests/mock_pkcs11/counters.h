// counters.h - what the mock module counts, in a file that every process of the token maps. A test reads it from
// outside while the module runs, and it lives through `kill -9`: 64-byte records of {state, name, number}, see
// counters.cc.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

namespace sallyport::mock {

class Counters {
 public:
  Counters() = default;
  ~Counters();
  Counters(const Counters&) = delete;
  Counters& operator=(const Counters&) = delete;

  // Maps `path`, made if it isn't there. False if that can't be: counting is then private to this process.
  bool open(const char* path);
  // Adds and returns the number before. Safe in any thread and process.
  uint64_t add(std::string_view name, uint64_t n = 1);
  uint64_t read(std::string_view name);
  static constexpr size_t NAME_BYTES = 52;  // longer names are cut

 private:
  struct Record {
    std::atomic<uint32_t> state;  // 0 free, 1 being named, 2 in use
    std::array<char, NAME_BYTES> name;
    std::atomic<uint64_t> n;
  };
  static_assert(sizeof(Record) == 64);
  static constexpr size_t RECORDS = 512;

  Record* find(std::string_view name);

  Record* records_ = nullptr;
};

}  // namespace sallyport::mock
