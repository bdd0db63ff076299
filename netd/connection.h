// connection.h - what every connection of a worker has in common. Part of: netd-worker (edge).
// A connection is owned by the worker's Registry. It ends itself by finish() or fail(); its memory goes at the end of
// the turn, so no callback ever runs on a dead object's stack. Never here: a byte sent to say why.
#pragma once

#include <memory>
#include <optional>

#include "common/event_loop.h"
#include "common/intrusive_list.h"
#include "netd/drop_log.h"
#include "netd/entries.h"
#include "netd/sources.h"
#include "proto/wire/drop_reason.h"

namespace sallyport::netd {

class Worker;

class Connection {
 public:
  Connection(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer);
  virtual ~Connection() noexcept(false);  // KJ's descriptors may throw when they close
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const Entry& entry() const { return *entry_; }
  const PublicKey& peer() const { return peer_; }  // all zero while it isn't known
  bool hasPeer() const;
  uint64_t lastActiveMs() const { return lastActiveMs_; }
  uint64_t startedMs() const { return startedMs_; }
  bool over() const { return over_; }
  // What a time-out of the handshake is called in this state.
  virtual wire::DropReason timeoutReason() const { return wire::DropReason::HandshakeTimeout; }
  // Which version of its block a session of the peer protocol was made with; nothing for all others.
  virtual std::optional<uint32_t> blockVersion() const { return std::nullopt; }
  // The encrypted side's socket, of a session; -1 before that.
  virtual int wireFd() const { return -1; }
  // What it holds of the worker's buffers.
  virtual size_t heldBytes() const { return 0; }
  // Goes on after Worker::yield().
  virtual void resume() {}
  // What a drop for this reason is told about: a session names its peer.
  virtual Dropped describe(wire::DropReason reason) const;

  // Ends the connection at once, counts the reason; both sides see a failure. Does nothing when it is over.
  void fail(wire::DropReason reason);
  // A reload: the entry's new description, or null if it is gone.
  void reconsider(std::shared_ptr<const Entry> fresh);

  uint64_t unheardSinceMs = 0;  // when Worker::checkPeers() first found its peer asked and silent; 0: it wasn't
  uint64_t waitingSinceMs = 0;  // when it began to hold memory for a slow reader or an unfinished frame
  ListHook hook;                // Registry's list of all
  ListHook runHook;             // connections that could go on at once, but let the others have their turn
  ListHook waitingHook;         // handshakes under way, or connections that hold memory: the longest first

 protected:
  // Ends it in order: nothing is counted.
  void finish();
  // Closes descriptors; called once. `failed`: the local side must see a reset.
  virtual void release(bool failed) = 0;
  void touch();
  // Why it failed; for release().
  std::optional<wire::DropReason> failure() const { return failure_; }

  Worker& worker_;
  std::shared_ptr<const Entry> entry_;
  PublicKey peer_;

 private:
  void end(bool failed);
  std::optional<wire::DropReason> failure_;
  uint64_t startedMs_ = 0;
  uint64_t lastActiveMs_ = 0;
  bool over_ = false;
};

}  // namespace sallyport::netd
