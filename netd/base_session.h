// base_session.h - one connection of the peer protocol's base mode, as the vault serves it. Part of: netd-worker (edge:
// speaks PeerSession of proto/vault.capnp). docs/protocol.md §13.3: the block is the key, so the vault seals and opens
// the frames itself and netd has nothing but their text. One piece of each direction is under way at a time.
#pragma once

#include <functional>
#include <memory>

#include "common/byte_queue.h"
#include "common/result.h"
#include "netd/call_gate.h"
#include "netd/wire_io.h"
#include "proto/vault.capnp.h"
#include "proto/wire/drop_reason.h"
#include "proto/wire/peer_frame.h"

namespace sallyport::netd {

// What the vault takes in one call.
inline constexpr size_t BASE_PIECE_BYTES = 60 * 1024;

class BaseSession {
 public:
  BaseSession(std::shared_ptr<CallGate> gate, proto::PeerSession::Client session);
  ~BaseSession();  // the vault ends it
  BaseSession(const BaseSession&) = delete;
  BaseSession& operator=(const BaseSession&) = delete;

  // The bytes to send for plain frames (headers with LENGTH and CODE, tags of any bytes), cut anywhere.
  using OnSealed = std::function<void(Result<ByteSpan, wire::DropReason>)>;
  void seal(ByteSpan frames, OnSealed onSealed);
  // Plain frames out of received bytes, cut anywhere. Only the first `sanctified` of them are to be believed.
  struct Opened {
    ByteSpan frames;
    size_t sanctified = 0;
    std::optional<wire::DropReason> fault;  // after them
    size_t given = 0;                       // received bytes that this answers
  };
  // Of an answer of the vault to `given` bytes; its bytes are the answer's.
  static Result<Opened, wire::DropReason> read(proto::OpenedOutcome::Reader outcome, size_t given);
  using OnOpened = std::function<void(Result<Opened, wire::DropReason>)>;
  void open(ByteSpan bytes, OnOpened onOpened);
  // Tells once when the vault has ended the session, or is gone: nothing need be sent or received for that. Only of a
  // session that lives, and this may be destroyed, but not inside the call.
  using OnEnded = std::function<void(wire::DropReason)>;
  void whenEnded(OnEnded onEnded);

 private:
  std::shared_ptr<CallGate> gate_;
  proto::PeerSession::Client session_;
  std::shared_ptr<bool> alive_;
  kj::Promise<void> ended_ = nullptr;  // dropped with us: that withdraws the question, which holds the vault's object
};

// The frames of one direction that came back from the vault, and how far they are genuine.
class BaseFrames {
 public:
  explicit BaseFrames(std::shared_ptr<BufferBudget> budget) : budget_(std::move(budget)) {}
  BaseFrames(const BaseFrames&) = delete;
  BaseFrames& operator=(const BaseFrames&) = delete;
  ~BaseFrames() { budget_->give(bytes_.size()); }
  void add(const BaseSession::Opened& opened);
  struct Frame {
    ByteSpan text;
    uint32_t code;
  };
  // The next genuine frame, until pop().
  std::optional<Frame> front() const;
  void pop();
  bool hasGenuine() const { return genuine_ > 0; }
  // What comes behind the genuine frames, if the vault has found something wrong: nothing more is opened.
  std::optional<wire::DropReason> fault() const { return fault_; }
  size_t size() const { return bytes_.size(); }
  // Of frames that aren't genuine yet: what has arrived, with what the vault holds back of a header or a tag.
  size_t partialBytes() const { return bytes_.size() - genuine_ + heldBack_; }
  // The header of a frame that isn't genuine yet: what it claims decides nothing but how long to wait.
  std::optional<wire::PeerHeader> underWay() const;

 private:
  static constexpr size_t KEPT_BYTES = 64 * 1024;
  std::shared_ptr<BufferBudget> budget_;
  ByteQueue bytes_{KEPT_BYTES};
  size_t genuine_ = 0;
  std::optional<wire::DropReason> fault_;
  size_t heldBack_ = 0;
};

// As the links of the other protocols: what a connection hands on when its handshake is over.
struct BaseLink {
  std::unique_ptr<BaseSession> session;
  std::unique_ptr<BaseFrames> received;
};

}  // namespace sallyport::netd
