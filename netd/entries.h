// entries.h - a worker's copy of the configured entries, with public keys only. Part of: netd-worker.
// Built from proto/netd_control.capnp. An entry object lives as long as a connection points to it, also after a reload
// took it away.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/bytes.h"

namespace sallyport::netd {

enum class EntryService : uint8_t { Target, Channel, Echo };

// Of the peer protocol: docs/protocol.md §13.
struct EntryFraming {
  bool base = false;  // else hard mode
  uint32_t maxFrameBytes = 0;
  uint32_t rotateFrames = 0;
  bool operator==(const EntryFraming&) const = default;
};

struct Entry {
  uint32_t id = 0;
  std::string name;
  bool isListen = false;
  EntryService service = EntryService::Target;                      // [[listen]] only
  std::unordered_map<PublicKey, std::string, PublicKeyHash> allow;  // [[listen]] only: key to peer name
  PublicKey server;                                                 // [[connect]] only
  std::string vaultKey;                                             // name of our own key
  std::optional<EntryFraming> framing;                              // the entry speaks the peer protocol

  // Of curve_tun. In the peer protocol who holds the block is the peer.
  bool allows(const PublicKey& peer) const { return isListen ? allow.contains(peer) : server == peer; }
  bool isBase() const { return framing && framing->base; }
};

// A worker's share of [limits]; all zero, which takes nobody, until the monitor has told it.
struct WorkerLimits {
  uint32_t halfOpen = 0;
  uint32_t connections = 0;
  uint32_t halfOpenPerSource = 0;
  uint32_t connectionsPerSource = 0;
  uint32_t handshakeTimeoutMs = 0;
  uint32_t dialTimeoutMs = 0;
  uint32_t idleTimeoutMs = 0;
  uint32_t acceptTimeoutMs = 0;
  uint32_t drainTimeoutMs = 0;
  uint32_t keepaliveS = 0;
  uint32_t userTimeoutMs = 0;
  uint64_t bufferBytes = 0;
};

struct Entries {
  uint64_t generation = 0;
  std::map<uint32_t, std::shared_ptr<const Entry>> byId;
  WorkerLimits limits;

  std::shared_ptr<const Entry> find(uint32_t id) const;
  std::shared_ptr<const Entry> find(std::string_view name, bool isListen) const;
};

// From the bytes of a WorkerConfig message. Throws kj::Exception: only the monitor writes it, so a fault is a bug.
Entries readEntries(ByteSpan message);

}  // namespace sallyport::netd
