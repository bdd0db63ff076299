// channel_service.h - message channels and status for local programs. Part of: netd-worker 0 (edge: serves
// proto/net.capnp). One worker serves [net] socket, and all listen entries whose service is "channel" are accepted
// there: a program and the channels it accepts are in one process, so no message ever crosses workers.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>

#include <kj/function.h>
#include <kj/io.h>

#include "common/rpc.h"
#include "netd/channel.h"
#include "netd/wire_session.h"

namespace sallyport::netd {

// A channel that waits for a program, or has found one.
struct OfferedChannel {
  std::shared_ptr<ChannelState> state;
  std::string peer;
  PublicKey peerKey;
  std::string address;
};

class ChannelService {
 public:
  // Takes over the listening socket of [net] socket.
  ChannelService(Worker& worker, kj::AutoCloseFd listener);
  ~ChannelService();

  // A fresh incoming session of a "channel" entry: goes to a program that waits in accept(), or waits itself, for a
  // bounded time.
  // `open` makes its connection, if there is room.
  using Open = kj::Function<std::unique_ptr<Connection>(std::shared_ptr<ChannelState>)>;
  void offer(const Entry& entry, const PublicKey& peer, std::string peerName, std::string address, Open open);

  // For Listener objects (rpc side).
  struct Acceptor {
    virtual ~Acceptor() noexcept(false) = default;
    virtual void give(OfferedChannel channel) = 0;
    // Instead of give(): a reload has taken the entry away, or has given it another service.
    virtual void entryGone() = 0;
  };
  void waitFor(const std::string& name, Acceptor& acceptor);  // give() is called at most once, maybe at once
  void stopWaiting(const std::string& name, Acceptor& acceptor);
  // Whether programs may accept at an entry of this name.
  bool serves(const std::string& name) const;
  void onConfig();

  // Who has connected to [net] socket, and whom the monitor has named.
  void admit(kj::AutoCloseFd program, uid_t user) { server_.admit(kj::mv(program), user); }
  void rest(bool resting) { server_.rest(resting); }

  const RpcServer::Stats& rpcStats() const { return server_.stats(); }

 private:
  struct Waiting {
    uint64_t number;
    OfferedChannel channel;
    kj::Promise<void> deadline;
  };
  struct Name {
    std::deque<Waiting> channels;
    std::deque<Acceptor*> acceptors;
  };
  void expire(const std::string& name, uint64_t number);

  Worker& worker_;
  std::map<std::string, Name> names_;
  uint64_t nextNumber_ = 0;
  size_t waitingChannels_ = 0;
  std::shared_ptr<bool> alive_;
  LinkBudget budget_;
  RpcServer server_;
};

}  // namespace sallyport::netd
