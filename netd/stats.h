// stats.h - what a worker counts, in a page of shared memory. Part of: netd (a worker writes its own page; the monitor
// and the worker that serves [net] socket map all pages read-only). Plain counters and gauges, and of each entry the
// public key that was refused last: nothing secret. A hostile worker can lie about itself only.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>

#include "common/bytes.h"
#include "proto/wire/drop_reason.h"

namespace sallyport::netd {

// X(enumerator, name, is it a gauge)
#define SALLYPORT_NET_COUNTERS(X) \
  X(Accepted, "accepted", false)                  /* encrypted connections taken from listeners */ \
  X(PlainAccepted, "plain_accepted", false)       /* local connections taken from listeners */ \
  X(ServerHandshakes, "server_handshakes", false) /* finished */ \
  X(ClientHandshakes, "client_handshakes", false) \
  X(HalfOpen, "half_open", true) \
  X(Connections, "connections", true) /* encrypted connections, half-open ones included */ \
  X(Tunnels, "tunnels", true) \
  X(Channels, "channels", true) \
  X(Echoes, "echoes", true) \
  X(BytesSealed, "bytes_sealed", false) /* text, without overhead */ \
  X(BytesOpened, "bytes_opened", false) \
  X(MessagesSealed, "messages_sealed", false) \
  X(MessagesOpened, "messages_opened", false) \
  X(BufferBytes, "buffer_bytes", true) /* held by connections that wait */ \
  X(Dials, "dials", false) \
  X(DialFailures, "dial_failures", false) \
  X(VaultCalls, "vault_calls", false) \
  X(VaultItems, "vault_items", false) \
  X(RpcClients, "rpc_clients", true) \
  X(RpcCutOff, "rpc_cut_off", false) \
  X(BusiestHalfOpen, "busiest_source_half_open", true) /* half-open connections of the source that has the most, */ \
  X(BusiestConnections, "busiest_source_connections", true) /* and all of the one that has the most of them */

enum class Counter : uint8_t {
#define X(id, text, gauge) id,
  SALLYPORT_NET_COUNTERS(X)
#undef X
};
#define X(id, text, gauge) +1
inline constexpr size_t COUNTER_COUNT = 0 SALLYPORT_NET_COUNTERS(X);
#undef X
struct CounterInfo {
  std::string_view name;
  bool gauge;
};
inline constexpr std::array<CounterInfo, COUNTER_COUNT> COUNTERS = {{
#define X(id, text, gauge) {text, gauge},
    SALLYPORT_NET_COUNTERS(X)
#undef X
}};

// What is counted for each entry too.
enum class EntryCounter : uint8_t {
  Accepted,    // connections taken from its listener
  Handshakes,  // finished
  Drops,       // for whatever reason
};
inline constexpr size_t ENTRY_COUNTER_COUNT = 3;
// Entries with a greater id have no counters of their own.
inline constexpr size_t MAX_COUNTED_ENTRIES = 1024;

// A peer that proved to hold its key, and may not use the entry.
struct RefusedPeer {
  PublicKey key;
  uint64_t atMs = 0;  // monotonic
};

// The page. Written by one process with relaxed stores.
class Stats {
 public:
  void add(Counter counter, uint64_t amount = 1) {
    auto& cell = counters_[static_cast<size_t>(counter)];
    cell.store(cell.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  void set(Counter gauge, uint64_t value) {
    counters_[static_cast<size_t>(gauge)].store(value, std::memory_order_relaxed);
  }
  void subtract(Counter counter, uint64_t amount = 1) { add(counter, ~amount + 1); }
  void drop(wire::DropReason reason) {
    auto& cell = drops_[static_cast<size_t>(reason)];
    cell.store(cell.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  uint64_t get(Counter counter) const {
    return counters_[static_cast<size_t>(counter)].load(std::memory_order_relaxed);
  }
  uint64_t get(wire::DropReason reason) const {
    return drops_[static_cast<size_t>(reason)].load(std::memory_order_relaxed);
  }

  static bool countsEntry(uint32_t entryId) { return entryId < MAX_COUNTED_ENTRIES; }
  void add(uint32_t entryId, EntryCounter counter);
  uint64_t get(uint32_t entryId, EntryCounter counter) const;
  void setRefused(uint32_t entryId, const RefusedPeer& peer);
  // Nothing: there is none, or the writer is in the middle of it.
  std::optional<RefusedPeer> refused(uint32_t entryId) const;

  // The process that wrote the page is gone, and with it all that it held.
  void resetGauges() {
    for (size_t i = 0; i < COUNTER_COUNT; ++i) {
      if (COUNTERS[i].gauge) counters_[i].store(0, std::memory_order_relaxed);
    }
  }

  // A memfd of the page's size, all zero. Throws kj::Exception.
  static int create();
  // Another descriptor of the same page that can't write it. Before lock-down.
  static int reopenReadOnly(int fd);
  // Maps a page for the life of the process. Throws kj::Exception.
  static Stats& map(int fd);
  static const Stats& mapReadOnly(int fd);

 private:
  std::array<std::atomic<uint64_t>, COUNTER_COUNT> counters_;
  std::array<std::atomic<uint64_t>, wire::DROP_REASON_COUNT> drops_;

  // Two words and a key that belong together: odd while they are being written, 0 before the first time. A writer that
  // died in the middle leaves it odd; the next one goes on from there.
  struct RefusedSlot {
    std::atomic<uint64_t> sequence;
    std::atomic<uint64_t> atMs;
    std::array<std::atomic<uint64_t>, PublicKey::SIZE / sizeof(uint64_t)> key;
  };
  struct PerEntry {
    std::array<std::atomic<uint64_t>, ENTRY_COUNTER_COUNT> counters;
    RefusedSlot refused;
  };
  std::array<PerEntry, MAX_COUNTED_ENTRIES> entries_;
};

}  // namespace sallyport::netd
