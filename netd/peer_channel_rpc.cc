// peer_channel_rpc.cc - see peer_channel_rpc.h. docs/protocol.md §13.4: what receive() gives out, and when.
// Never here: a byte of a frame that isn't whole, or bytes of two codes in one answer.
#include "netd/peer_channel_rpc.h"

#include <algorithm>
#include <vector>

#include "common/capnp_bytes.h"
#include "netd/channel_object.h"

namespace sallyport::netd {

using proto::NetRefusal;

namespace {

constexpr size_t ANSWER_BYTES = 512 * 1024;
// What a send is cut into: below the limit of whoever keeps the default, and well inside the worker's scratch memory.
constexpr uint32_t SENT_FRAME_BYTES = 64 * 1024 - wire::PEER_OVERHEAD_BYTES;

class PeerChannelImpl final : public ChannelObject<proto::PeerChannel> {
 public:
  PeerChannelImpl(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count)
      : ChannelObject(worker, std::move(state), std::move(count), 1) {}

  kj::Promise<void> send(SendContext context) override {
    if (sendsAreOver()) return refuseSend(context, NetRefusal::CLOSED);
    if (state_->reservesCode && context.getParams().getCode() == wire::PEER_CODE_CONTROL)
      return refuseSend(context, NetRefusal::RESERVED_CODE);
    const size_t most = std::min(SENT_FRAME_BYTES, state_->maxMessageBytes);
    return sends_.enqueue(kj::mv(context), [most](ChannelWire& connection, SendContext& call) {
      const uint32_t code = call.getParams().getCode();
      ByteSpan data = toBytes(call.getParams().getData());
      std::vector<OutgoingMessage> frames;
      do {
        frames.push_back({.text = data.first(std::min(data.size(), most)), .code = code});
        data = data.subspan(frames.back().text.size());
      } while (!data.empty());
      connection.send(frames);
    });
  }

 private:
  enum class Verdict : uint8_t { Wait, Complete, More, TooBig, Over };

  // What a call can be told now. `bytes` and `frames` are what it gets: so many bytes, which are so many whole frames
  // and maybe a part of one more.
  struct Plan {
    Verdict verdict = Verdict::Wait;
    size_t bytes = 0;
    uint32_t tooBig = 0;
    uint32_t code = 0;
  };

  // The first `count` bytes of the inbox are frames that go into this answer: takes them.
  void take(size_t count, MutableByteSpan to) {
    Inbox& inbox = state_->inbox;
    while (true) {
      const ByteSpan front = inbox.front();
      const size_t part = std::min(front.size(), count);
      std::ranges::copy(front.first(part), to.begin());
      to = to.subspan(part);
      count -= part;
      begun_ = part < front.size();
      if (begun_) return inbox.popPart(part);
      inbox.pop();
      if (count == 0) return;
    }
  }

  // `first`: nothing has been given out for this request yet.
  Plan plan(uint64_t wanted, bool first) {
    Plan plan{.code = code_};
    if (wanted == 0 && !begun_) {
      plan.verdict = Verdict::Complete;
      return plan;
    }
    bool begun = begun_;  // the front frame was given out in part, so the rest of it has room
    const auto stopWith = [&plan](Verdict verdict) {
      plan.verdict = verdict;
      return false;
    };
    state_->inbox.peek([&](size_t size, uint32_t code) {
      if (!begun) {
        const bool leads = first && plan.bytes == 0;
        if (leads) plan.code = code;
        if (!leads && (code != plan.code || size == 0)) return stopWith(Verdict::Complete);
        if (size > wanted - plan.bytes) {
          plan.tooBig = static_cast<uint32_t>(size);
          return stopWith(leads ? Verdict::TooBig : Verdict::Complete);
        }
        emptyFrame_ = size == 0;
        if (emptyFrame_) return stopWith(Verdict::Complete);
      }
      begun = false;
      plan.bytes += std::min<uint64_t>(size, wanted - plan.bytes);
      if (plan.bytes >= ANSWER_BYTES) {
        const bool all = plan.bytes == wanted && plan.bytes == ANSWER_BYTES;
        plan.bytes = ANSWER_BYTES;
        return stopWith(all ? Verdict::Complete : Verdict::More);
      }
      return plan.bytes < wanted || stopWith(Verdict::Complete);
    });
    if (plan.verdict == Verdict::Wait) waitOn(plan, wanted, first);
    return plan;
  }

  // All that is here goes out, and it isn't all that was asked for.
  void waitOn(Plan& plan, uint64_t wanted, bool first) const {
    if (state_->ended) {
      plan.verdict = Verdict::Over;
    } else if (const auto& next = state_->underWay) {
      // Its header says already whether it belongs to this request.
      const bool leads = first && plan.bytes == 0;
      if (!leads && (next->code != plan.code || next->length > wanted - plan.bytes))
        plan.verdict = Verdict::Complete;
      else if (leads && next->length > wanted)
        plan = {.verdict = Verdict::TooBig, .tooBig = next->length, .code = next->code};
    }
    // What is here goes out at once: the client asks again for the rest.
    if (plan.verdict == Verdict::Wait && plan.bytes > 0) plan.verdict = Verdict::More;
  }

  bool answer(ReceiveContext& context) override {
    const auto params = context.getParams();
    emptyFrame_ = false;
    const Plan plan = this->plan(params.getMaxBytes(), !params.getContinued());
    if (plan.verdict == Verdict::Wait) return false;
    auto received = context.getResults(capnp::MessageSize{plan.bytes / sizeof(capnp::word) + 32, 0}).initReceived();
    received.setCode(plan.code);
    code_ = plan.code;
    auto data = received.initData(static_cast<uint>(plan.bytes));
    if (plan.bytes > 0) take(plan.bytes, {reinterpret_cast<std::byte*>(data.begin()), data.size()});
    if (emptyFrame_) state_->inbox.pop();
    auto status = received.getStatus();
    switch (plan.verdict) {
      case Verdict::Wait:
      case Verdict::More: status.setMore(); break;
      case Verdict::Complete: status.setComplete(); break;
      case Verdict::TooBig: status.setTooBig(plan.tooBig); break;
      case Verdict::Over:
        // protocol §13.4: an end that was authentic stays one, whatever becomes of what we send.
        if (state_->broken && (!state_->peerEnded || state_->broken == wire::DropReason::AfterEnd))
          status.setBroken(std::string(wire::name(*state_->broken)));
        else
          status.setEnded();
    }
    if (state_->connection != nullptr) state_->connection->resumeReading();
    return true;
  }

  void answerTimeout(ReceiveContext& context) override {
    context.getResults().initReceived().getStatus().setSlowPeer();
  }

  void answerClosed(ReceiveContext& context, bool) override {
    context.getResults().initReceived().getStatus().setBroken("closed");
  }

  uint32_t code_ = 0;        // of the bytes given out last
  bool begun_ = false;       // the front frame of the inbox was given out in part
  bool emptyFrame_ = false;  // the answer at hand is an empty frame
};

}  // namespace

proto::PeerChannel::Client makePeerChannel(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count) {
  return kj::heap<PeerChannelImpl>(worker, std::move(state), std::move(count));
}

}  // namespace sallyport::netd
