// ends.h - the two programs of a connection: the real machines, driven as netd-worker drives them. Part of: tests/sim.
// What differs from netd/incoming.cc, outgoing.cc and tunnel.cc is what stands around the machines: a virtual clock
// instead of a loop, a fake vault instead of RPC, and a list of messages instead of a local socket.
#pragma once

#include <optional>
#include <vector>

#include "netd/frame_reader.h"
#include "netd/handshake.h"
#include "tests/sim/dice.h"
#include "tests/sim/wire.h"

namespace sallyport::sim {

struct Server;
struct Client;

class End {
 public:
  End(World& world, Wire& wire, Direction& out, int fd);
  virtual ~End();
  End(const End&) = delete;
  End& operator=(const End&) = delete;

  virtual bool isServer() const = 0;
  void onReadable();
  void fail(wire::DropReason reason);

  bool over() const { return over_; }
  bool complete() const { return complete_; }
  std::optional<wire::DropReason> fault() const { return fault_; }
  bool established() const { return session_.has_value(); }
  Wire& wire() { return wire_; }
  const PublicKey& clientEphemeral() const { return clientEphemeral_; }
  const std::vector<Frame>& sent() const { return sent_; }
  bool sentEnd() const { return sentEnd_; }
  size_t receivedCount() const { return received_; }
  bool gotEnd() const { return gotEnd_; }

 protected:
  virtual size_t expectedPacketBytes() const = 0;
  virtual bool awaitsVault() const = 0;
  virtual void onPacket(ByteSpan packet) = 0;
  virtual void leave() {}
  void armDeadline();
  void begin(netd::Session session);
  template <size_t N>
  void write(const wire::Block<N>& frame) {
    out_.send(Frame(frame.begin(), frame.end()));
  }

  World& world_;
  Wire& wire_;
  PublicKey clientEphemeral_;
  bool over_ = false;

 private:
  void readPacket();
  void readFrames();
  std::optional<wire::DropReason> openPacket(MutableByteSpan packet);
  void sendNext();
  void finishIfDone();
  void end();

  Direction& out_;
  int fd_;
  std::array<std::byte, wire::FRAME_HEADER_BYTES + wire::INITIATE_BYTES> packet_{};
  size_t have_ = 0;
  std::optional<netd::Session> session_;
  netd::FrameReader reader_;
  std::optional<wire::DropReason> fault_;
  bool complete_ = false;
  size_t toSend_ = 0;
  std::vector<Frame> sent_;
  size_t received_ = 0;
  bool sentEnd_ = false;
  bool gotEnd_ = false;
};

class ServerEnd final : public End {
 public:
  ServerEnd(World& world, Wire& wire, int fd, Server& server);
  bool isServer() const override { return true; }
  Server& server() { return server_; }
  const PublicKey& peer() const { return peer_; }

 private:
  // What exists while a connection is half-open, for the test of what it holds.
  struct HalfOpen {
    netd::ServerHandshake machine;
    Drawn kept{};  // by a canary alone
  };
  static_assert(sizeof(netd::ServerHandshake) <= 96, "a half-open connection costs almost nothing");

  size_t expectedPacketBytes() const override { return state_.machine.expectedPacketBytes(); }
  bool awaitsVault() const override { return unbound_.has_value() || state_.machine.awaitsVault(); }
  void onPacket(ByteSpan packet) override;
  void leave() override;
  void perform(netd::ServerHandshake::Step step);
  void onEstablished(netd::Established established);
  void checkForgotten();
  void onInitiateUnbound(ByteSpan packet);

  Server& server_;
  HalfOpen state_;
  std::vector<Drawn> secrets_;  // those that it must have forgotten
  PublicKey peer_;
  std::optional<netd::SharedKey> unbound_;  // by a canary alone
};

class ClientEnd final : public End {
 public:
  ClientEnd(World& world, Wire& wire, int fd, Client& client);
  bool isServer() const override { return false; }
  Client& client() { return client_; }
  bool vouched() const { return vouched_; }
  void start();

 private:
  size_t expectedPacketBytes() const override { return machine_.expectedPacketBytes(); }
  bool awaitsVault() const override { return asking_; }
  void onPacket(ByteSpan packet) override;
  void perform(netd::ClientHandshake::Step step);

  Client& client_;
  netd::ClientHandshake machine_;
  bool asking_ = false;
  bool vouched_ = false;
};

}  // namespace sallyport::sim
