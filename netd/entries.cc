// entries.cc - see entries.h.
#include "netd/entries.h"

#include <capnp/serialize.h>
#include <kj/debug.h>

#include "common/capnp_bytes.h"
#include "proto/netd_control.capnp.h"

namespace sallyport::netd {

namespace {

PublicKey keyFrom(capnp::Data::Reader data) {
  auto key = PublicKey::tryFrom(toBytes(data));
  KJ_REQUIRE(key.has_value(), "a key of the wrong length in the worker's configuration");
  return *key;
}

EntryService serviceFrom(proto::Service service) {
  switch (service) {
    case proto::Service::TARGET: return EntryService::Target;
    case proto::Service::CHANNEL: return EntryService::Channel;
    case proto::Service::ECHO: return EntryService::Echo;
  }
  KJ_FAIL_REQUIRE("an unknown service in the worker's configuration");
}

template <typename Reader>
std::optional<EntryFraming> framingFrom(const Reader& entry) {
  if (!entry.hasPeer()) return std::nullopt;
  const auto peer = entry.getPeer();
  return EntryFraming{
      .base = peer.getBase(), .maxFrameBytes = peer.getMaxFrameBytes(), .rotateFrames = peer.getRotateFrames()};
}

}  // namespace

std::shared_ptr<const Entry> Entries::find(uint32_t id) const {
  const auto found = byId.find(id);
  return found == byId.end() ? nullptr : found->second;
}

std::shared_ptr<const Entry> Entries::find(std::string_view name, bool isListen) const {
  for (const auto& [id, entry] : byId) {
    if (entry->isListen == isListen && entry->name == name) return entry;
  }
  return nullptr;
}

Entries readEntries(ByteSpan message) {
  std::vector<capnp::word> words(message.size() / sizeof(capnp::word));
  std::memcpy(words.data(), message.data(), words.size() * sizeof(capnp::word));
  capnp::ReaderOptions options;
  options.traversalLimitInWords = words.size() * 4 + 1024;
  capnp::FlatArrayMessageReader reader(kj::arrayPtr(words.data(), words.size()), options);
  const auto config = reader.getRoot<proto::WorkerConfig>();

  Entries entries;
  entries.generation = config.getGeneration();
  const auto peers = config.getPeers();
  for (const auto listen : config.getListens()) {
    auto entry = std::make_shared<Entry>();
    entry->id = listen.getId();
    entry->name = listen.getName();
    entry->isListen = true;
    entry->service = serviceFrom(listen.getService());
    entry->vaultKey = listen.getVaultKey();
    entry->framing = framingFrom(listen);
    for (const uint32_t index : listen.getAllow()) {
      KJ_REQUIRE(index < peers.size());
      entry->allow.emplace(keyFrom(peers[index].getKey()), peers[index].getName());
    }
    entries.byId.emplace(entry->id, std::move(entry));
  }
  for (const auto connect : config.getConnects()) {
    auto entry = std::make_shared<Entry>();
    entry->id = connect.getId();
    entry->name = connect.getName();
    entry->vaultKey = connect.getVaultKey();
    entry->framing = framingFrom(connect);
    if (!entry->framing) entry->server = keyFrom(connect.getServerKey());
    entries.byId.emplace(entry->id, std::move(entry));
  }
  const auto limits = config.getLimits();
  entries.limits = {.halfOpen = limits.getHalfOpen(),
                    .connections = limits.getConnections(),
                    .halfOpenPerSource = limits.getHalfOpenPerSource(),
                    .connectionsPerSource = limits.getConnectionsPerSource(),
                    .handshakeTimeoutMs = limits.getHandshakeTimeoutMs(),
                    .dialTimeoutMs = limits.getDialTimeoutMs(),
                    .idleTimeoutMs = limits.getIdleTimeoutMs(),
                    .acceptTimeoutMs = limits.getAcceptTimeoutMs(),
                    .drainTimeoutMs = limits.getDrainTimeoutMs(),
                    .keepaliveS = limits.getKeepaliveS(),
                    .userTimeoutMs = limits.getUserTimeoutMs(),
                    .bufferBytes = limits.getBufferBytes()};
  return entries;
}

}  // namespace sallyport::netd
