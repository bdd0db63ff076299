// hsm_link.h - the client's end of an hsmd: requests out, replies and control frames in. Part of: hsmlink (vaultd,
// CLI). docs/protocol.md §12. It knows which request a reply answers, whose slot is whose, and when a worker is late;
// what a request means, its users know.
//
// Nothing that comes in is trusted. A reply to nobody's request, of another epoch, or twice, is counted and dropped. A
// frame that can't be read, or a reply of the wrong kind, is a worker that is not ours any more: it is killed. A worker
// that is late is killed too. Its slots stay taken until it is known to be dead: it could still write into them. What
// it has left in the page is wiped then.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "common/event_loop.h"
#include "hsmlink/alarm_clock.h"
#include "hsmlink/keeper.h"
#include "proto/hsm/frames.h"

namespace sallyport::hsmlink {

enum class Failure : uint8_t {
  NotUp,       // there is no worker now
  Busy,        // too much is under way
  WorkerGone,  // it died, or was killed, before it answered
  Late,        // no answer in time
  Garbage,     // what it answered can't be an answer
  Dropped,     // nobody waits for it any more: dropAll()
};
std::string_view describe(Failure failure);

using Outcome = Result<hsm::Reply, Failure>;

class HsmLink {
 public:
  // Told of what happens; must not destroy the link inside a call. The link has done its own part before.
  class Events {
   public:
    virtual void onControl(const hsm::Control& control) = 0;
    // The worker of this epoch is to die, and everything is refused from now on: but its end may be long in coming.
    virtual void onKill(hsm::KillReason reason) = 0;
    virtual void onEnd() = 0;  // the keeper is gone, once

   protected:
    ~Events() = default;
  };
  // Called exactly once, from the loop or out of send().
  using Done = std::function<void(const Outcome&)>;

  HsmLink(EventLoop& loop, KeeperEnds ends, Events& events);
  ~HsmLink() noexcept(false);
  HsmLink(const HsmLink&) = delete;

  bool up() const { return up_; }
  // There is a worker, and it isn't being ended.
  bool serves() const { return up_ && !dying(); }
  bool ended() const { return ended_; }
  uint32_t epoch() const { return epoch_; }
  size_t underWay() const { return pending_.size(); }
  const SharedPage& page() const { return *page_; }

  // A slot of nobody's, full of zeros; nothing if all are taken.
  std::optional<uint16_t> takeSlot();
  void giveSlot(uint16_t slot);
  bool messageIsFree() const { return !messageTaken_; }

  // `slot`: the one that `ask` names, from takeSlot(); it is the link's from here on, and wiped and given back after
  // `done`, which may read it. A Sign takes the message area likewise: fill it before, if messageIsFree(); it is wiped
  // also if the Sign is refused.
  void send(const hsm::Ask& ask, std::optional<uint16_t> slot, uint64_t deadlineMs, Done done);
  // Ends the worker of this epoch; the keeper starts another.
  void kill(hsm::KillReason reason);
  // Somebody waits for a worker: the keeper is not to wait before it starts the next one.
  void hurry();
  void stop();

  struct Counts {
    uint64_t answered = 0;
    uint64_t stale = 0;    // replies to nobody, or of another epoch
    uint64_t garbage = 0;  // frames that can't be read
    uint64_t late = 0;
  };
  const Counts& counts() const { return counts_; }
  // Everything that is under way is refused now, and the page wiped. What the worker makes of those calls afterwards is
  // dropped; their slots stay taken until it has answered or is dead.
  void dropAll();

 private:
  struct Pending {
    uint32_t epoch;
    size_t verb;  // index in hsm::Ask
    std::optional<uint16_t> slot;
    bool message = false;
    uint64_t deadlineAtMs;
    Done done;  // empty: refused already, as late or as dropped
  };
  struct End final : EventLoop::Watcher {
    HsmLink& link;
    bool control;
    End(HsmLink& owner, bool isControl) : link(owner), control(isControl) {}
    void onEvents(uint32_t events) override { control ? link.readControl() : link.readCalls(); }
  };

  void readCalls();
  void readControl();
  void take(const hsm::Reply& reply);
  void takeControl(const hsm::Control& control);
  void garbage();
  void finish(std::map<uint64_t, Pending>::iterator call, const Outcome& outcome);
  void failAll(Failure failure);
  void endEpoch();
  // The worker is being ended, and isn't dead yet.
  bool dying() const { return up_ && killedEpoch_ == epoch_; }
  void giveMessage();
  bool sendControl(const hsm::Control& control);
  void end();
  void watchDeadlines();
  void checkDeadlines();

  EventLoop& loop_;
  kj::AutoCloseFd calls_, control_;
  std::unique_ptr<SharedPage> page_;
  Events& events_;
  End callsEnd_{*this, false}, controlEnd_{*this, true};
  bool up_ = false;
  bool ended_ = false;
  uint32_t epoch_ = 0;
  uint32_t killedEpoch_ = 0;
  uint32_t deadEpoch_ = 0;  // of the last death
  uint64_t nextId_ = 1;
  std::map<uint64_t, Pending> pending_;
  std::vector<uint16_t> freeSlots_;
  std::vector<uint16_t> spoiledSlots_;  // of a worker that is dying: free with the next
  bool messageTaken_ = false;
  Counts counts_;
  AlarmClock deadlines_{loop_, [this] { checkDeadlines(); }};
};

}  // namespace sallyport::hsmlink
