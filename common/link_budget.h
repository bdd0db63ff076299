// link_budget.h - what the links of a process share: bytes and turns. Part of: common (any process). A limit per link
// isn't enough: 256 of them, each just below its own, are a lot. Both are shared by users, not by links, so one user's
// programs, however many, can't take the room or the time of another's.
//
//   bytes  what links hold, in messages that come in and answers that nobody reads, and what a link costs by itself.
//          When they are used up, the user who holds most of them loses its largest link, until it fits again
//   turns  in one turn of the loop at most TURN_MESSAGES messages of a user are handled; the rest waits for the next
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "common/event_loop.h"

namespace sallyport {

class LinkBudget {
 public:
  static constexpr size_t LINK_BYTES = 12 * 1024;  // measured: an idle link with its RPC system
  static constexpr unsigned TURN_MESSAGES = 8;

  class Holder {
   public:
    // Let go of everything. Never called from within holds().
    virtual void overBudget() = 0;
    // The turn that takeTurn() didn't give. It lasts for the call.
    virtual void yourTurn() = 0;

   protected:
    ~Holder() = default;

   private:
    friend class LinkBudget;
    uid_t owner_ = 0;
    size_t held_ = 0;
    bool waits_ = false;
  };

  // Must outlive its holders, and `loop` this.
  LinkBudget(EventLoop& loop, size_t maxBytes) : loop_(loop), maxBytes_(maxBytes) {}
  ~LinkBudget() noexcept { *alive_ = false; }
  LinkBudget(const LinkBudget&) = delete;

  void add(Holder& holder, uid_t owner);
  void remove(Holder& holder);
  void holds(Holder& holder, size_t bytes);  // beside LINK_BYTES
  // May the holder handle a message now? If not, it hears yourTurn() in one of the next turns.
  bool takeTurn(Holder& holder);
  // A client is gone: within a second its memory is the system's again.
  void left();
  size_t held() const { return held_; }

 private:
  struct Owner {
    unsigned taken = 0;  // messages of this turn
    std::deque<Holder*> waiting;
  };
  void set(Holder& holder, size_t bytes);
  void relieve();
  Holder* greediest() const;
  void endTurnLater();
  void endTurn();

  EventLoop& loop_;
  size_t maxBytes_;
  size_t held_ = 0;
  bool relieving_ = false;
  bool turning_ = false;
  std::vector<Holder*> holders_;
  std::map<uid_t, Owner> owners_;  // those of this turn, and those who wait
  kj::Maybe<kj::Promise<void>> trimming_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sallyport
