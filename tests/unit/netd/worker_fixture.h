// worker_fixture.h - a whole worker in the test's own loop: the test is its monitor, its vault, its peers and its
// targets. Everything is a Unix socket.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <optional>

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/io.h>

#include "common/capnp_bytes.h"
#include "netd/memory_file.h"
#include "netd/worker.h"
#include "proto/netd_control.capnp.h"
#include "tests/unit/netd/base_vault.h"
#include "tests/unit/netd/test_vault.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::netd::test {

namespace fs = std::filesystem;

inline constexpr uint32_t ECHO_ENTRY = 1, TARGET_ENTRY = 2, CHANNEL_ENTRY = 3;
// The same services in the peer protocol.
inline constexpr uint32_t PEER_ECHO_ENTRY = 4, PEER_TARGET_ENTRY = 5, PEER_CHANNEL_ENTRY = 6;
inline constexpr uint32_t BASE_ECHO_ENTRY = 7, BASE_CHANNEL_ENTRY = 8;
inline constexpr uint32_t ENTRIES = 8;
inline constexpr uint32_t MAX_PEER_FRAME_BYTES = 1 << 20;

// The limits of one worker.
struct Options {
  uint32_t halfOpen = 100, connections = 100, halfOpenPerSource = 100, connectionsPerSource = 100;
  uint32_t handshakeTimeoutMs = 2000, dialTimeoutMs = 2000, idleTimeoutMs = 0, drainTimeoutMs = 100;
  uint64_t bufferBytes = 64 << 20;
  bool allowed = true;
  bool channels = true;  // or all their entries are echoes
  const char* blockName = "block";
  uint32_t rotateFrames = 65536;
  uint32_t maxFrameBytes = MAX_PEER_FRAME_BYTES;
};

// TestVault behind the vault's schema.
class VaultServer final : public proto::Net::Server {
 public:
  explicit VaultServer(TestVault& vault) : vault_(vault) {}

  kj::Promise<void> sealCookies(SealCookiesContext context) override {
    const auto asked = context.getParams().getHellos();
    auto outcomes = context.getResults().initOutcomes(asked.size());
    for (uint i = 0; i < asked.size(); ++i) {
      SealCookieRequest request{
          PublicKey(toBytes(asked[i].getClientEphemeral())), {}, PublicKey(toBytes(asked[i].getServerEphemeral())), {}};
      std::ranges::copy(toBytes(asked[i].getBox()), request.box.begin());
      std::ranges::copy(toBytes(asked[i].getCookie()), request.cookie.begin());
      const auto sealed = vault_.sealCookie(request);
      if (!sealed) {
        outcomes[i].setRefused(proto::Refusal::BAD_BOX);
        continue;
      }
      auto to = outcomes[i].initSealed();
      to.setNonce(toData(sealed->packet.nonce.span()));
      to.setBox(toData(sealed->packet.box));
    }
    return kj::READY_NOW;
  }
  kj::Promise<void> verifyVouches(VerifyVouchesContext context) override {
    const auto asked = context.getParams().getVouches();
    auto outcomes = context.getResults().initOutcomes(asked.size());
    for (uint i = 0; i < asked.size(); ++i) {
      VerifyVouchRequest request{PublicKey(toBytes(asked[i].getClient())),
                                 LongNonceBytes(toBytes(asked[i].getNonce())),
                                 {},
                                 PublicKey(toBytes(asked[i].getClientEphemeral()))};
      std::ranges::copy(toBytes(asked[i].getBox()), request.box.begin());
      const auto verdict = vault_.verifyVouch(request);
      if (verdict)
        outcomes[i].setPeer(verdict->peer);
      else
        outcomes[i].setRefused(verdict.error() == R::BadVouch ? proto::Refusal::BAD_BOX
                                                              : proto::Refusal::PEER_NOT_ALLOWED);
    }
    return kj::READY_NOW;
  }
  kj::Promise<void> peerSalts(PeerSaltsContext context) override {
    const auto asked = context.getParams().getEntries();
    auto outcomes = context.getResults().initOutcomes(asked.size());
    for (uint i = 0; i < asked.size(); ++i) {
      EXPECT_TRUE(asked[i].getListen());
      if (vault_.saltsOverRate > 0) {
        --vault_.saltsOverRate;
        outcomes[i].setRefused(proto::Refusal::RATE_LIMITED);
        continue;
      }
      auto drawn = outcomes[i].initDrawn();
      drawn.setParty(proto::PeerParty::B);
      drawn.setSalt(toData(vault_.drawPeerSalt().span()));
      drawn.setVersion(vault_.blockVersion);
    }
    return vault_.holdsSalts ? holdIn(vault_.heldSalts) : kj::READY_NOW;
  }
  kj::Promise<void> peerKeys(PeerKeysContext context) override {
    const auto asked = context.getParams().getRequests();
    auto outcomes = context.getResults().initOutcomes(asked.size());
    for (uint i = 0; i < asked.size(); ++i) {
      const wire::PeerSalt own(toBytes(asked[i].getOwnSalt())), theirs(toBytes(asked[i].getPeerSalt()));
      if (vault_.takePeerSalt(own))
        derive(outcomes[i].initDerived(), own, theirs);
      else
        outcomes[i].setRefused(proto::Refusal::EXPIRED);
    }
    return kj::READY_NOW;
  }
  kj::Promise<void> peerAccept(PeerAcceptContext context) override {
    const auto asked = context.getParams().getRequests();
    vault_.accepts += asked.size();
    auto outcomes = context.getResults().initOutcomes(asked.size());
    for (uint i = 0; i < asked.size(); ++i) {
      wire::PeerSalt own;
      randombytes_buf(own.data(), wire::PeerSalt::SIZE);
      auto accepted = outcomes[i].initAccepted();
      accepted.setParty(proto::PeerParty::B);
      accepted.setOwnSalt(toData(own.span()));
      const wire::PeerSalt theirs(toBytes(asked[i].getPeerSalt()));
      derive(accepted, own, theirs);
      auto others = accepted.initOthers(static_cast<uint>(vault_.otherBlocks.size()));
      for (uint j = 0; j < others.size(); ++j) {
        const auto& [number, block] = vault_.otherBlocks[j];
        derive(others[j], own, theirs, block, number);
      }
    }
    return vault_.holdsAccepts ? holdIn(vault_.heldAccepts) : kj::READY_NOW;
  }
  kj::Promise<void> peerSession(PeerSessionContext context) override {
    ++vault_.sessions;
    const auto first = toBytes(context.getParams().getFirst());
    auto session = kj::heap<BaseSessionOfB>(vault_);
    auto begun = context.getResults().initOutcome().initBegun();
    if (!first.empty()) session->openInto(first, begun.initOpened());
    begun.setSession(kj::mv(session));
    begun.setParty(proto::PeerParty::B);
    return kj::READY_NOW;
  }

 private:
  // Answers when it is told to.
  static kj::Promise<void> holdIn(std::vector<std::function<void()>>& held) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    held.push_back([fulfiller = std::make_shared<kj::Own<kj::PromiseFulfiller<void>>>(kj::mv(paf.fulfiller))] {
      (*fulfiller)->fulfill();
    });
    return kj::mv(paf.promise);
  }
  template <typename Outcome>
  void derive(Outcome outcome, const wire::PeerSalt& own, const wire::PeerSalt& theirs) {
    derive(outcome, own, theirs, vault_.block, vault_.blockVersion);
  }
  template <typename Outcome>
  static void derive(Outcome outcome, const wire::PeerSalt& own, const wire::PeerSalt& theirs,
                     peer::PeerBlockView block, uint32_t version) {
    using wire::PeerParty;
    outcome.setSendSecret(toData(peer::hardSendSecret(block, PeerParty::B, own, theirs).expose()));
    outcome.setReceiveSecret(toData(peer::hardReceiveSecret(block, PeerParty::B, own, theirs).expose()));
    outcome.setVersion(version);
  }

  TestVault& vault_;
};

class WorkerTest : public testing::Test {
 protected:
  WorkerTest() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    monitor.emplace(
        loop, ends[0], size_t{1024}, [this](ControlChannel::Received& received) { onRecord(received); },
        [this] { workerGone = true; });
    worker.emplace(loop, ends[1], stats);
  }
  ~WorkerTest() noexcept override {
    worker.reset();
    // Whatever happened, nothing is left over: no work of the worker that is gone, and nothing that was counted.
    for (int i = 0; i < 3; ++i) loop.turn(0);
    for (size_t i = 0; i < COUNTER_COUNT; ++i) {
      if (!COUNTERS[i].gauge) continue;
      EXPECT_EQ(stats.get(static_cast<Counter>(i)), 0u) << COUNTERS[i].name;
    }
  }

  // --- the monitor -----------------------------------------------------------------------------------------------
  void configure(const Options& options) {
    vault.maxFrameBytes = options.maxFrameBytes;
    capnp::MallocMessageBuilder message;
    auto root = message.initRoot<proto::WorkerConfig>();
    auto peer = root.initPeers(1)[0];
    peer.setName("alice");
    peer.setKey(toData(vault.client.open.span()));
    auto listens = root.initListens(ENTRIES);
    const std::pair<const char*, proto::Service> services[] = {
        {"echo", proto::Service::ECHO},      {"db", proto::Service::TARGET},
        {"chat", proto::Service::CHANNEL},   {"peer-echo", proto::Service::ECHO},
        {"peer-db", proto::Service::TARGET}, {"peer-chat", proto::Service::CHANNEL},
        {"base-echo", proto::Service::ECHO}, {"base-chat", proto::Service::CHANNEL}};
    for (uint i = 0; i < ENTRIES; ++i) {
      listens[i].setName(services[i].first);
      listens[i].setId(i + 1);
      listens[i].setService(options.channels || services[i].second != proto::Service::CHANNEL ? services[i].second
                                                                                              : proto::Service::ECHO);
      listens[i].setVaultKey(i < 3 ? "server" : options.blockName);
      if (i < 3 && options.allowed) listens[i].initAllow(1).set(0, 0);
      if (i < 3) continue;
      listens[i].initPeer().setMaxFrameBytes(options.maxFrameBytes);
      listens[i].getPeer().setBase(i + 1 >= BASE_ECHO_ENTRY);
      listens[i].getPeer().setRotateFrames(i + 1 >= BASE_ECHO_ENTRY ? 0 : options.rotateFrames);
    }
    auto limits = root.initLimits();
    limits.setHalfOpen(options.halfOpen);
    limits.setConnections(options.connections);
    limits.setHalfOpenPerSource(options.halfOpenPerSource);
    limits.setConnectionsPerSource(options.connectionsPerSource);
    limits.setHandshakeTimeoutMs(options.handshakeTimeoutMs);
    limits.setDialTimeoutMs(options.dialTimeoutMs);
    limits.setIdleTimeoutMs(options.idleTimeoutMs);
    limits.setAcceptTimeoutMs(2000);
    limits.setBufferBytes(options.bufferBytes);
    limits.setDrainTimeoutMs(options.drainTimeoutMs);
    const auto words = capnp::messageToFlatArray(message);
    const auto bytes = words.asBytes();
    sendFd({.kind = ControlKind::Config},
           writeMemoryFile("config", {reinterpret_cast<const std::byte*>(bytes.begin()), bytes.size()}));
  }
  void sendFd(const ControlRecord& record, kj::AutoCloseFd fd) {
    std::vector<kj::AutoCloseFd> fds;
    fds.push_back(kj::mv(fd));
    monitor->send(record, {}, kj::mv(fds));
  }
  fs::path address(uint32_t entry) const { return folder / ("wire" + std::to_string(entry)); }
  // Everything that a worker needs to serve.
  void start(const Options& options = {}, bool withVault = true) {
    configure(options);
    monitor->send({.kind = ControlKind::CookieKey}, MinuteKey::random().expose());
    for (uint32_t entry = 1; entry <= ENTRIES; ++entry) {
      sendFd({.kind = ControlKind::WireListener, .target = entry}, kj::AutoCloseFd(listenUnix(address(entry), 0600)));
    }
    if (withVault) {
      vaultServer.emplace(
          loop, listenUnix(folder / "vault", 0600),
          [this](const PeerCredentials&) -> kj::Maybe<capnp::Capability::Client> {
            return capnp::Capability::Client(kj::heap<VaultServer>(vault));
          },
          LinkLimits{});
      sendFd({.kind = ControlKind::VaultLink}, kj::AutoCloseFd(connectUnix(folder / "vault")));
    }
    turns();
  }
  void onRecord(ControlChannel::Received& received) {
    records.push_back(received.record);
    if (received.record.kind == ControlKind::WhoCalls)
      return unnamed.push_back({received.record.target, kj::mv(received.fds[0])});
    if (received.record.kind != ControlKind::Dial || !answerDials) return;
    if (dialError) {
      return monitor->send({.kind = ControlKind::DialFailed,
                            .request = received.record.request,
                            .value = received.record.value < *dialError ? ECONNREFUSED : 0u});
    }
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    target = kj::AutoCloseFd(ends[0]);
    sendFd({.kind = ControlKind::Dialed, .request = received.record.request, .value = dialedValue},
           kj::AutoCloseFd(ends[1]));
  }
  size_t recordsOf(ControlKind kind) const {
    return static_cast<size_t>(std::ranges::count(records, kind, &ControlRecord::kind));
  }

  // --- time ------------------------------------------------------------------------------------------------------
  void turns(int count = 10) {
    for (int i = 0; i < count; ++i) loop.turn(1);
  }
  template <typename Condition>
  [[nodiscard]] bool until(Condition&& condition, int milliseconds = 5000) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      loop.turn(5);
    }
    return true;
  }
  [[nodiscard]] bool dropped(R reason, uint64_t count = 1) {
    return until([&] { return stats.get(reason) >= count; }) && stats.get(reason) == count;
  }

  // --- a peer ----------------------------------------------------------------------------------------------------
  struct Peer {
    kj::AutoCloseFd socket;
    std::optional<ClientHandshake> machine;
    std::optional<Session> session;
  };
  Peer dial(uint32_t entry) {
    Peer peer{kj::AutoCloseFd(connectUnix(address(entry))), ClientHandshake(vault.server.open), std::nullopt};
    return peer;
  }
  void write(const Peer& peer, ByteSpan bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(peer.socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) bytes = bytes.subspan(static_cast<size_t>(sent));
      if (sent < 0 && errno != EAGAIN) return;
      if (sent < 0) loop.turn(1);
    }
  }
  // What comes until `bytes` have or the other side closes.
  std::vector<std::byte> read(int fd, size_t bytes) {
    std::vector<std::byte> data(bytes);
    size_t have = 0;
    static_cast<void>(until([&] {
      const ssize_t got = recv(fd, data.data() + have, data.size() - have, 0);
      if (got > 0) have += static_cast<size_t>(got);
      return have == bytes || got == 0 || (got < 0 && errno != EAGAIN);
    }));
    data.resize(have);
    return data;
  }
  bool closed(int fd) {
    return until([&] {
      std::byte byte;
      const ssize_t got = recv(fd, &byte, 1, 0);
      EXPECT_LE(got, 0) << "a byte came";
      return got == 0 || (got < 0 && errno != EAGAIN) || got > 0;
    });
  }
  void hello(Peer& peer) { write(peer, std::get<wire::HelloFrame>(peer.machine->start())); }
  // Up to the Initiate; then the session is ours, whatever the server thinks of it.
  [[nodiscard]] bool handshake(Peer& peer) {
    hello(peer);
    const auto cookie = read(peer.socket, wire::FRAME_HEADER_BYTES + wire::COOKIE_PACKET_BYTES);
    if (cookie.size() != wire::FRAME_HEADER_BYTES + wire::COOKIE_PACKET_BYTES) return false;
    auto asked = peer.machine->onPacket(ByteSpan(cookie).subspan(2));
    auto made = peer.machine->onVault(vault.makeVouch(std::get<MakeVouchRequest>(asked)));
    auto& [frame, established] = std::get<3>(made);
    write(peer, frame);
    peer.session.emplace(std::move(established.session));
    return true;
  }
  Peer connected(uint32_t entry) {
    Peer peer = dial(entry);
    EXPECT_TRUE(handshake(peer));
    EXPECT_TRUE(until([&] { return stats.get(Counter::HalfOpen) == 0; }));
    return peer;
  }
  std::vector<std::byte> sealed(Peer& peer, std::string_view text) {
    std::vector<std::byte> frame(MESSAGE_TEXT_OFFSET + text.size());
    std::memcpy(frame.data() + MESSAGE_TEXT_OFFSET, text.data(), text.size());
    EXPECT_EQ(peer.session->seal(cipher, frame), std::nullopt);
    return frame;
  }
  void say(Peer& peer, std::string_view text) { write(peer, sealed(peer, text)); }
  // The next message, or "!" when there is none.
  std::string hear(Peer& peer) {
    const auto head = read(peer.socket, 2);
    if (head.size() != 2) return "!";
    auto packet = read(peer.socket, wire::readFrameLength(std::span(head).first<2>()));
    auto text = peer.session->open(cipher, packet);
    return text ? test::text(*text) : "!";
  }

  EventLoop loop;
  Stats stats{};
  TestVault vault;
  MessageCipher cipher;
  sallyport::test::TemporaryFolder temporary;
  const fs::path& folder = temporary.path();
  std::vector<ControlRecord> records;
  struct Unnamed {
    uint32_t target;
    kj::AutoCloseFd socket;
  };
  std::vector<Unnamed> unnamed;  // callers that the worker can't name, as they came
  kj::AutoCloseFd target;
  bool answerDials = true;
  uint64_t dialedValue = 0;           // 1: the last dial failed
  std::optional<uint64_t> dialError;  // so many addresses fail, then there are no more
  bool workerGone = false;
  std::optional<RpcServer> vaultServer;
  std::optional<ControlChannel> monitor;
  std::optional<Worker> worker;
};

}  // namespace sallyport::netd::test
