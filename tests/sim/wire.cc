#include "tests/sim/wire.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tests/sim/world.h"

namespace sallyport::sim {

namespace {
constexpr uint64_t HEAL_MS = 8000;  // after this the network gives up a connection that it has harmed
// Of the Hello's key: X25519 ignores it, so no box tells.
constexpr size_t HIGHEST_KEY_BIT = (wire::FRAME_HEADER_BYTES + wire::MAGIC_BYTES + wire::KEY_BYTES) * 8 - 1;
constexpr const char* DEEDS[DEED_COUNT] = {"none",     "flip",    "shorten", "drop",       "double", "swap", "garbage",
                                           "recorded", "reflect", "cut",     "cut before", "splice", "stall"};
}  // namespace

void Direction::begin(World& world, Wire& wire, bool toServer) {
  world_ = &world;
  wire_ = &wire;
  toServer_ = toServer;
  style_ = world.dice().below(4);
}

Direction::~Direction() {
  if (fd_ >= 0) ::close(fd_);
}

void Direction::connect(End* receiver, int fd) {
  receiver_ = receiver;
  fd_ = fd;
}

void Direction::send(Frame frame) {
  if (closing_) return;
  frames_.push_back(frame);
  if (wire_->plan.deed != Deed::None && wire_->plan.toServer == toServer_ && wire_->plan.frame == frames_.size() - 1) {
    tamper(std::move(frame));
  } else {
    append(frame);
    if (held_) append(*std::exchange(held_, std::nullopt));
  }
  pumpLater();
}

void Direction::tamper(Frame frame) {
  Dice& dice = world_->dice();
  World& world = *world_;
  Direction& other = toServer_ ? wire_->toClient : wire_->toServer;
  wire_->done = true;
  wire_->excuse(TAMPERED);
  world.after(HEAL_MS, [wire = wire_] { wire->cut(); });
  switch (wire_->plan.deed) {
    case Deed::Flip:
      wire_->flippedBit = dice.below(frame.size() * 8);
      if (dice.oneIn(4)) wire_->flippedBit = std::min(HIGHEST_KEY_BIT, frame.size() * 8 - 1);
      frame[wire_->flippedBit / 8] ^= std::byte(1U << (wire_->flippedBit % 8));
      return append(frame);
    case Deed::Shorten: {
      const size_t at = dice.below(frame.size());
      const size_t bytes = dice.between(1, std::min<size_t>(frame.size() - at, 40));
      frame.erase(frame.begin() + static_cast<ptrdiff_t>(at), frame.begin() + static_cast<ptrdiff_t>(at + bytes));
      return append(frame);
    }
    case Deed::Drop: return;
    case Deed::Double: append(frame); return append(frame);
    case Deed::Swap: held_ = std::move(frame); return;
    case Deed::Garbage: append(dice.bytes(dice.between(1, 300))); return append(frame);
    case Deed::Recorded:
      if (const Frame* recorded = world.anyFrame(*wire_)) append(*recorded);
      return append(frame);
    case Deed::Reflect:
      if (!other.frames_.empty()) append(other.frames_[dice.below(other.frames_.size())]);
      return append(frame);
    case Deed::Cut:
      frame.resize(dice.below(frame.size()));
      append(frame);
      return close(false);
    case Deed::CutBefore: return close(false);
    case Deed::Splice:
      if (Wire* neighbour = world.anyOpenWire(*wire_)) {
        Direction& theirs = toServer_ ? neighbour->toServer : neighbour->toClient;
        neighbour->excuse(TAMPERED);
        neighbour->spliced = wire_->spliced = true;
        world.after(HEAL_MS, [neighbour] { neighbour->cut(); });
        std::swap(receiver_, theirs.receiver_);
        std::swap(fd_, theirs.fd_);
        std::swap(closed_, theirs.closed_);
      }
      return append(frame);
    case Deed::Stall: stalled_ = true; return append(frame);
    case Deed::None: break;
  }
  append(frame);
}

void Direction::append(const Frame& bytes) {
  if (receiver_ == nullptr) return;
  pending_.insert(pending_.end(), bytes.begin(), bytes.end());
}

void Direction::close(bool now) {
  closing_ = true;
  if (now) {
    pending_.clear();
    start_ = 0;
  }
  pumpLater();
}

void Direction::pumpLater() {
  if (scheduled_ || stalled_ || receiver_ == nullptr) return;
  scheduled_ = true;
  world_->after(world_->dice().below(4), [this] {
    scheduled_ = false;
    pump();
  });
}

void Direction::pump() {
  if (stalled_ || receiver_ == nullptr || closed_) return;
  Dice& dice = world_->dice();
  const size_t left = pending_.size() - start_;
  if (left > 0) {
    size_t piece = left;
    if (style_ == 1) piece = 1;
    if (style_ == 2) piece = dice.between(1, 60);
    if (style_ == 3) piece = dice.between(1, 20000);
    piece = std::min(left, std::max(piece, left / 64));
    const ssize_t sent = ::send(fd_, pending_.data() + start_, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
      start_ = pending_.size();  // the receiver has gone
    } else if (sent > 0) {
      start_ += static_cast<size_t>(sent);
    }
    if (start_ == pending_.size()) {
      pending_.clear();
      start_ = 0;
    }
  } else if (closing_) {
    closed_ = true;
    ::shutdown(fd_, SHUT_WR);
  } else {
    return;
  }
  receiver_->onReadable();
  if (!pending_.empty() || (closing_ && !closed_)) pumpLater();
}

Wire::Wire(World& world, size_t number, Plan what) : id(number), plan(what), world_(world) {
  toServer.begin(world, *this, true);
  toClient.begin(world, *this, false);
}

void Wire::cut() {
  for (Direction* direction : {&toServer, &toClient}) {
    direction->stalled_ = false;
    direction->close(true);
  }
}

std::string Wire::describe() const {
  return "connection " + std::to_string(id) + " (" + DEEDS[static_cast<size_t>(plan.deed)] + " of frame " +
         std::to_string(plan.frame) + (plan.toServer ? " to the server" : " to the client") +
         (done ? ", done" : ", not come to") + ", excuses " + std::to_string(excuses_) + ")";
}

}  // namespace sallyport::sim
