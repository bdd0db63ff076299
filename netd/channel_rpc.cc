// channel_rpc.cc - see channel_rpc.h.
#include "netd/channel_rpc.h"

#include <algorithm>
#include <vector>

#include "common/capnp_bytes.h"
#include "netd/channel_object.h"

namespace sallyport::netd {

using proto::NetRefusal;

namespace {

constexpr size_t MAX_ANSWER_BYTES = (2 << 20) - 4096;  // what a message of [net] socket may hold
constexpr size_t RECEIVE_BYTES = 256 * 1024;           // texts in one answer: about what a socket takes at once

class ChannelImpl final : public ChannelObject<proto::Channel> {
 public:
  ChannelImpl(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count)
      : ChannelObject(worker, std::move(state), std::move(count), MAX_CALLS_WAITING) {}

  kj::Promise<void> send(SendContext context) override {
    if (sendsAreOver()) return refuseSend(context, NetRefusal::CLOSED);
    for (auto message : context.getParams().getMessages()) {
      if (message.getData().size() > state_->maxMessageBytes) return refuseSend(context, NetRefusal::TOO_BIG);
    }
    return sends_.enqueue(kj::mv(context), [](ChannelWire& connection, SendContext& call) {
      std::vector<OutgoingMessage> outgoing;
      for (auto message : call.getParams().getMessages()) outgoing.push_back({.text = toBytes(message.getData())});
      connection.send(outgoing);
    });
  }

 private:
  bool answer(ReceiveContext& context) override {
    if (state_->inbox.empty() && !state_->ended) return false;
    fill(context);
    return true;
  }

  void answerTimeout(ReceiveContext& context) override {
    auto received = context.getResults().initReceived();
    received.setEnd(proto::ChannelEnd::OPEN);
    received.setUnderWay(static_cast<uint32_t>(state_->partialBytes));
  }

  void answerClosed(ReceiveContext& context, bool waited) override {
    auto received = context.getResults().initReceived();
    received.setEnd(waited ? proto::ChannelEnd::ENDED : proto::ChannelEnd::BROKEN);
    if (!waited) received.setReason("closed");
  }

  void fill(ReceiveContext& context) {
    // A foreign peer's frame that no answer can hold: for this interface it is too large.
    if (!state_->inbox.empty() && state_->inbox.front().size() > MAX_ANSWER_BYTES) {
      if (state_->connection != nullptr) state_->connection->breakOff(wire::DropReason::FrameTooLarge);
      state_->broken = wire::DropReason::FrameTooLarge;
      state_->ended = true;
      state_->inbox.wipeAll();
    }
    const size_t limit =
        std::min<size_t>(std::max<uint32_t>(context.getParams().getMaxMessages(), 1), state_->inbox.count());
    // The list's size must be known before it is made: count what fits.
    sizesScratch_.clear();
    size_t bytes = 0;
    state_->inbox.peekSizes(limit, [&](size_t size) {
      bytes += size + 24;
      if (bytes > RECEIVE_BYTES && !sizesScratch_.empty()) return false;
      sizesScratch_.push_back(size);
      return true;
    });
    auto received =
        context.getResults(capnp::MessageSize{bytes / sizeof(capnp::word) + 32 + 3 * sizesScratch_.size(), 0})
            .initReceived();
    auto list = received.initMessages(static_cast<uint>(sizesScratch_.size()));
    for (uint i = 0; i < list.size(); ++i) {
      list[i].setData(toData(state_->inbox.front()));
      state_->inbox.pop();
    }
    if (state_->inbox.empty() && state_->ended) {
      received.setEnd(state_->broken ? proto::ChannelEnd::BROKEN : proto::ChannelEnd::ENDED);
      if (state_->broken) received.setReason(std::string(wire::name(*state_->broken)));
    }
    received.setUnderWay(static_cast<uint32_t>(state_->partialBytes));
    if (state_->connection != nullptr) state_->connection->resumeReading();
  }

  std::vector<size_t> sizesScratch_;
};

}  // namespace

proto::Channel::Client makeChannel(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count) {
  return kj::heap<ChannelImpl>(worker, std::move(state), std::move(count));
}

}  // namespace sallyport::netd
