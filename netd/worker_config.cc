// worker_config.cc - see worker_config.h.
#include "netd/worker_config.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <algorithm>

#include "common/capnp_bytes.h"
#include "proto/netd_control.capnp.h"

namespace sallyport::netd {

uint32_t EntryIds::of(bool isListen, const std::string& name) {
  return ids_.try_emplace({isListen, name}, static_cast<uint32_t>(ids_.size() + 1)).first->second;
}

namespace {

proto::Service serviceOf(const Service& service) {
  if (std::holds_alternative<ChannelService>(service)) return proto::Service::CHANNEL;
  if (std::holds_alternative<EchoService>(service)) return proto::Service::ECHO;
  return proto::Service::TARGET;
}

void writeFraming(const sallyport::PeerFraming& framing, proto::PeerFraming::Builder to) {
  to.setBase(framing.mode == PeerMode::Base);
  to.setMaxFrameBytes(framing.maxFrameBytes);
  to.setRotateFrames(framing.rotateFrames);
}

void writeLimits(const LimitsConfig& limits, unsigned workers, proto::WorkerLimits::Builder to) {
  const auto share = [workers](uint32_t total) { return (total + workers - 1) / workers; };
  to.setHalfOpen(share(limits.halfOpen));
  to.setConnections(share(limits.connections));
  to.setHalfOpenPerSource(share(limits.halfOpenPerSource));
  to.setConnectionsPerSource(share(limits.connectionsPerSource));
  to.setHandshakeTimeoutMs(limits.handshakeTimeoutMs);
  to.setDialTimeoutMs(limits.dialTimeoutMs);
  to.setIdleTimeoutMs(limits.idleTimeoutS * 1000);
  to.setAcceptTimeoutMs(limits.acceptTimeoutMs);
  to.setDrainTimeoutMs(limits.drainTimeoutMs);
  to.setKeepaliveS(limits.keepaliveS);
  to.setUserTimeoutMs(limits.userTimeoutMs);
  to.setBufferBytes((uint64_t{limits.bufferMiB} << 20) / workers);
}

}  // namespace

std::vector<std::byte> encodeWorkerConfig(const Config& config, EntryIds& ids, uint64_t generation, unsigned workers) {
  capnp::MallocMessageBuilder message;
  auto root = message.initRoot<proto::WorkerConfig>();
  root.setGeneration(generation);

  std::map<std::string, uint32_t> peerIndex;
  auto peers = root.initPeers(static_cast<uint>(config.peers.size()));
  uint32_t next = 0;
  for (const auto& [name, key] : config.peers) {
    peers[next].setName(name);
    peers[next].setKey(toData(key.span()));
    peerIndex[name] = next++;
  }

  auto listens = root.initListens(static_cast<uint>(config.listens.size()));
  for (uint i = 0; i < listens.size(); ++i) {
    const ListenEntry& entry = config.listens[i];
    listens[i].setName(entry.name);
    listens[i].setId(ids.of(true, entry.name));
    listens[i].setService(serviceOf(entry.service));
    listens[i].setVaultKey(entry.key);
    if (entry.protocol == Protocol::Peer) writeFraming(entry.framing, listens[i].initPeer());
    auto allow = listens[i].initAllow(static_cast<uint>(entry.allow.size()));
    for (uint j = 0; j < allow.size(); ++j) allow.set(j, peerIndex.at(entry.allow[j]));
  }
  auto connects = root.initConnects(static_cast<uint>(config.connects.size()));
  for (uint i = 0; i < connects.size(); ++i) {
    const ConnectEntry& entry = config.connects[i];
    connects[i].setName(entry.name);
    connects[i].setId(ids.of(false, entry.name));
    connects[i].setVaultKey(entry.key);
    if (entry.protocol == Protocol::Peer)
      writeFraming(entry.framing, connects[i].initPeer());
    else
      connects[i].setServerKey(toData(config.peers.at(entry.peer).span()));
  }
  writeLimits(config.limits, workers, root.initLimits());

  const auto words = capnp::messageToFlatArray(message);
  const auto bytes = words.asBytes();
  const auto* first = reinterpret_cast<const std::byte*>(bytes.begin());
  return {first, first + bytes.size()};
}

}  // namespace sallyport::netd
