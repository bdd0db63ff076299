// worker.h - the state of one worker process, and what its connections share. Part of: netd-worker.
// The worker accepts on listeners that it was handed, runs handshakes and sessions, asks the vault for protocol steps
// and the monitor for sockets. It opens nothing, and no long-term secret is ever in its memory.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "common/event_loop.h"
#include "common/text_page.h"
#include "netd/connection.h"
#include "netd/ciphers.h"
#include "netd/control.h"
#include "netd/cookie_keys.h"
#include "netd/drop_log.h"
#include "netd/entries.h"
#include "netd/sources.h"
#include "netd/stats.h"
#include "netd/vault_client.h"
#include "netd/wire_io.h"

namespace sallyport::netd {

class ChannelService;
class DialedSocket;
class Listener;

class Worker {
 public:
  // Takes over `controlFd`.
  Worker(EventLoop& loop, int controlFd, Stats& stats);
  ~Worker();

  // Tells the monitor that the sandbox holds; `report` is ControlKind::Ready's payload.
  void announce(std::string_view report);

  EventLoop& loop() { return loop_; }
  Stats& stats() { return stats_; }
  // Every drop: counts it, keeps the key of a peer that isn't allowed for `sallyport status`, and logs as much as the
  // log's ration allows.
  void drop(const Dropped& dropped);
  Ciphers& ciphers() { return ciphers_; }
  CookieKeys& cookieKeys() { return cookieKeys_; }
  VaultClient& vault() { return vault_; }
  BufferBudget& budget() { return *budget_; }
  // For what may outlive the worker's own destructor.
  std::shared_ptr<BufferBudget> sharedBudget() { return budget_; }
  Sources& sources() { return sources_; }
  const Entries& entries() const { return entries_; }
  const WorkerLimits& limits() const { return entries_.limits; }
  ControlChannel& control() { return control_; }
  ChannelService* channels() { return channels_.get(); }
  const std::vector<const Stats*>& allStats() const { return allStats_; }
  bool draining() const { return draining_; }
  // For what may outlive it: false from the beginning of its end.
  std::shared_ptr<const bool> alive() const { return alive_; }
  std::span<std::byte, SCRATCH_BYTES> scratch() { return *scratch_; }

  // Registry.
  void own(std::unique_ptr<Connection> connection);
  // Frees it at the end of the turn, after what was to be done soon.
  void bury(Connection& connection);
  // Calls connection.resume() in the next turn, after the others had theirs.
  void yield(Connection& connection);
  // Runs `work` at the end of this turn, unless the worker is gone: for what must not happen inside the call at hand.
  void soon(std::function<void()> work);
  // The connection has bytes that wait for a slow reader (or no longer). May fail the longest-waiting one.
  void setWaiting(Connection& connection, bool waiting);
  // A handshake that holds so many bytes, and wants to go on. While memory is short one that holds a lot doesn't; who
  // is about to say his first word isn't kept out.
  bool mayHold(size_t bytes) const;

  // Handshakes under way, oldest first: they share one deadline, so the front one is always the next to time out.
  void startHandshake(Connection& connection, bool incoming);
  Connection* oldestHalfOpen() const { return halfOpen_.front(); }

  // Asks the monitor for a socket to the entry's target; the socket's owner is told by number.
  uint64_t startDial(DialedSocket& dial, uint32_t entryId, uint64_t attempt);
  // How a dial of an entry ended: errno, or 0.
  void tellDialed(uint32_t entryId, int error);
  void forgetDial(uint64_t request) { dials_.erase(request); }
  void expireDial(uint64_t request);
  // Asks the monitor something (StatusRequest, ReloadRequest); `onAnswer` gets the record that names the request.
  void request(ControlKind kind, std::function<void(ControlChannel::Received&)> onAnswer);

  // Outgoing handshakes are paced: an entry's plain listener rests while too many of its own are under way, so that
  // one silent server doesn't hold up the others.
  void outgoingStarted(uint32_t entryId);
  void outgoingEnded(uint32_t entryId);
  bool mayStartOutgoing(uint32_t entryId) const;
  // Descriptors of connections stay below this number; the rest is for what the monitor hands over.
  int descriptorCeiling() const { return descriptorCeiling_; }
  // How many configurations came: who asked the vault under an older one has the sessions looked at once more.
  uint64_t configNumber() const { return configNumber_; }
  void recheckBlocksSoon();
  // Out of descriptors: all listeners rest for a moment.
  void pauseAccepting();
  // Somebody has connected to a Unix socket, an entry's or NET_SOCKET, whom only the monitor can name: let in when it
  // has.
  void askWhoCalls(uint32_t target, kj::AutoCloseFd socket);

 private:
  static constexpr uint32_t MAX_OUTGOING = 256;
  // Of one socket, so that a crowd at it holds up no other; the monitor keeps 1,024 answers for a worker that doesn't
  // read.
  static constexpr uint32_t MAX_UNNAMED = 16;

  struct PendingRequest {
    ControlKind kind;
    std::vector<std::function<void(ControlChannel::Received&)>> callbacks;
  };

  void onControl(ControlChannel::Received& received);
  void handle(ControlChannel::Received& received);
  void onCaller(ControlChannel::Received& received);
  void onConfig(kj::AutoCloseFd fd);
  // A host: who has shown that key to an entry. In the peer protocol, who has the entry's block.
  using Holder = std::pair<uint32_t, PublicKey>;
  static Holder holderOf(const Connection& connection);
  Connection* whoPays();
  Holder heaviest() const;
  void relieve();
  void relieveIn(uint64_t delayMs);
  void recheckBlocks();
  void recheckBlocksLater();
  void onBlockVersion(uint32_t entryId, std::optional<uint32_t> version);
  void watchPeers();
  void checkPeers();
  void onTick();
  void armTick();
  void timeOut(IntrusiveList<Connection, &Connection::waitingHook>& list);
  void drain();
  void checkDrained();
  void updateListeners();
  bool mayAskWhoCalls(uint32_t target) const;

  EventLoop& loop_;
  std::shared_ptr<bool> alive_;
  Stats& stats_;
  DropLog dropLog_;
  Ciphers ciphers_;
  CookieKeys cookieKeys_;
  std::shared_ptr<BufferBudget> budget_;
  Sources sources_{stats_};
  Entries entries_;
  ControlChannel control_;
  VaultClient vault_;
  std::unique_ptr<std::array<std::byte, SCRATCH_BYTES>> scratch_;
  IntrusiveList<Connection, &Connection::hook> connections_;
  IntrusiveList<Connection, &Connection::runHook> runnable_;
  IntrusiveList<Connection, &Connection::waitingHook> waiting_;
  IntrusiveList<Connection, &Connection::waitingHook> halfOpen_;  // incoming
  IntrusiveList<Connection, &Connection::waitingHook> outgoingList_;
  std::deque<std::unique_ptr<Connection>> dead_;
  std::multimap<uint32_t, std::unique_ptr<Listener>> listeners_;
  std::unordered_map<uint64_t, DialedSocket*> dials_;
  std::unordered_map<uint64_t, PendingRequest> requests_;
  uint64_t nextRequest_ = 1;
  std::map<uint32_t, std::unique_ptr<VaultClient::Question>> rechecks_;  // under way, by entry
  uint64_t configNumber_ = 0;
  Holder payer_;
  uint64_t payerSinceMs_ = 0;
  bool relieveArmed_ = false;
  kj::Maybe<kj::Promise<void>> relieving_;
  bool recheckSoon_ = false;
  bool recheckArmed_ = false;
  kj::Maybe<kj::Promise<void>> recheck_;
  std::unique_ptr<ChannelService> channels_;
  std::unique_ptr<TextPageServer> metrics_;
  std::vector<const Stats*> allStats_;
  kj::Promise<void> tick_ = nullptr;
  bool tickArmed_ = false;
  kj::Maybe<kj::Promise<void>> peerCheck_;
  std::unordered_map<uint32_t, uint32_t> outgoing_;  // handshakes under way, by entry
  int descriptorCeiling_;
  std::unordered_map<uint32_t, uint32_t> unnamed_;  // callers whom the monitor was asked about, by target
  bool paused_ = false;                             // out of descriptors
  kj::Promise<void> pause_ = nullptr;
  bool draining_ = false;
  uint64_t drainDeadlineMs_ = 0;
};

}  // namespace sallyport::netd
