// stats.cc - see stats.h.
#include "netd/stats.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include <kj/debug.h>
#include <kj/io.h>

namespace sallyport::netd {

int Stats::create() {
  int fd;
  KJ_SYSCALL(fd = memfd_create("netd stats", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  kj::AutoCloseFd owned(fd);
  KJ_SYSCALL(ftruncate(owned, sizeof(Stats)));
  KJ_SYSCALL(
      fcntl(owned, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));  // a shrunk page would be a SIGBUS for its readers
  return owned.release();
}

int Stats::reopenReadOnly(int fd) {
  int readOnly;
  KJ_SYSCALL(readOnly = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY | O_CLOEXEC));
  return readOnly;
}

Stats& Stats::map(int fd) {
  void* page = mmap(nullptr, sizeof(Stats), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  KJ_REQUIRE(page != MAP_FAILED, "can't map the statistics page");
  return *static_cast<Stats*>(page);
}

const Stats& Stats::mapReadOnly(int fd) {
  void* page = mmap(nullptr, sizeof(Stats), PROT_READ, MAP_SHARED, fd, 0);
  KJ_REQUIRE(page != MAP_FAILED, "can't map the statistics page");
  return *static_cast<const Stats*>(page);
}

void Stats::add(uint32_t entryId, EntryCounter counter) {
  if (!countsEntry(entryId)) return;
  auto& cell = entries_[entryId].counters[static_cast<size_t>(counter)];
  cell.store(cell.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

uint64_t Stats::get(uint32_t entryId, EntryCounter counter) const {
  if (!countsEntry(entryId)) return 0;
  return entries_[entryId].counters[static_cast<size_t>(counter)].load(std::memory_order_relaxed);
}

void Stats::setRefused(uint32_t entryId, const RefusedPeer& peer) {
  if (!countsEntry(entryId)) return;
  RefusedSlot& slot = entries_[entryId].refused;
  std::array<uint64_t, PublicKey::SIZE / sizeof(uint64_t)> words;
  std::memcpy(words.data(), peer.key.data(), sizeof words);
  const uint64_t odd = slot.sequence.load(std::memory_order_relaxed) | 1;
  slot.sequence.store(odd, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  slot.atMs.store(peer.atMs, std::memory_order_relaxed);
  for (size_t i = 0; i < words.size(); ++i) slot.key[i].store(words[i], std::memory_order_relaxed);
  slot.sequence.store(odd + 1, std::memory_order_release);
}

std::optional<RefusedPeer> Stats::refused(uint32_t entryId) const {
  if (!countsEntry(entryId)) return std::nullopt;
  const RefusedSlot& slot = entries_[entryId].refused;
  const uint64_t before = slot.sequence.load(std::memory_order_acquire);
  if (before == 0 || before % 2 != 0) return std::nullopt;
  std::array<uint64_t, PublicKey::SIZE / sizeof(uint64_t)> words;
  const uint64_t atMs = slot.atMs.load(std::memory_order_relaxed);
  for (size_t i = 0; i < words.size(); ++i) words[i] = slot.key[i].load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (slot.sequence.load(std::memory_order_relaxed) != before) return std::nullopt;
  return RefusedPeer{PublicKey(std::as_bytes(std::span(words))), atMs};
}

}  // namespace sallyport::netd
