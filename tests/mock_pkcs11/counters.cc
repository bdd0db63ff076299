#include "tests/mock_pkcs11/counters.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

namespace sallyport::mock {

Counters::~Counters() {
  if (records_ != nullptr) munmap(records_, RECORDS * sizeof(Record));
}

bool Counters::open(const char* path) {
  if (records_ != nullptr) return true;
  const int fd = ::open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  const bool sized = fd >= 0 && ftruncate(fd, RECORDS * sizeof(Record)) == 0;
  const int kind = sized ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* map = mmap(nullptr, RECORDS * sizeof(Record), PROT_READ | PROT_WRITE, kind, sized ? fd : -1, 0);
  if (fd >= 0) close(fd);
  if (map == MAP_FAILED) return false;
  records_ = static_cast<Record*>(map);
  return sized;
}

Counters::Record* Counters::find(std::string_view name) {
  if (records_ == nullptr) return nullptr;
  name = name.substr(0, NAME_BYTES);
  for (size_t i = 0; i < RECORDS; ++i) {
    Record& record = records_[i];
    uint32_t state = 0;
    if (record.state.compare_exchange_strong(state, 1)) {
      record.name.fill(0);
      std::copy(name.begin(), name.end(), record.name.begin());
      record.state.store(2);
      return &record;
    }
    // Whoever was killed while it named a record leaves it behind for good; nobody waits for him for long.
    for (int spin = 0; record.state.load() == 1 && spin < 1000; ++spin) std::this_thread::yield();
    if (record.state.load() != 2) continue;
    if (std::string_view(record.name.data(), strnlen(record.name.data(), NAME_BYTES)) == name) return &record;
  }
  return nullptr;
}

uint64_t Counters::add(std::string_view name, uint64_t n) {
  Record* record = find(name);
  return record == nullptr ? 0 : record->n.fetch_add(n);
}

uint64_t Counters::read(std::string_view name) {
  Record* record = find(name);
  return record == nullptr ? 0 : record->n.load();
}

}  // namespace sallyport::mock
