#include "cli/pair_channel.h"

#include "common/capnp_bytes.h"
#include "common/log.h"

namespace sallyport::cli {

using vaultd::Problem;

namespace {

// People may be asked for a passphrase on the other side meanwhile.
constexpr uint32_t TEXT_TIMEOUT_MS = 120'000;

Result<std::unique_ptr<DaemonClient>, Problem> connectNetd(EventLoop& loop, const Config& config) {
  auto client = DaemonClient::connect(loop, config.net.socket);
  if (!client) return refuse(Problem{"netd " + client.error().message, client.error().hint});
  return std::move(*client);
}

Problem refused(const std::string& entry, proto::NetRefusal refusal) {
  if (refusal == proto::NetRefusal::TIMED_OUT) return {"`" + entry + "`: nobody came in time", "start both sides"};
  return {"`" + entry + "`: no channel, code " + std::to_string(static_cast<unsigned>(refusal)),
          "is the other side up, and our key in its `allow`? `sallyport status` tells more"};
}

}  // namespace

Result<PairChannel, Problem> PairChannel::connect(EventLoop& loop, const Config& config, const std::string& entry) {
  auto client = connectNetd(loop, config);
  if (!client) return refuse(client.error());
  PairChannel channel(loop, std::move(*client));
  auto request = channel.client_->as<proto::Network>().connectRequest();
  request.setName(entry.c_str());
  const uint32_t timeoutMs = config.limits.dialTimeoutMs + config.limits.handshakeTimeoutMs;
  request.setTimeoutMs(timeoutMs);
  auto answer = answerOf(loop, request.send(), timeoutMs + ANSWER_TIMEOUT_MS);
  if (!answer) return refuse(Problem{"netd " + answer.error(), {}});
  const auto outcome = answer->getOutcome();
  if (outcome.isRefused()) return refuse(refused(entry, outcome.getRefused()));
  channel.channel_ = outcome.getChannel();
  return channel;
}

Result<PairChannel, Problem> PairChannel::accept(EventLoop& loop, const Config& config, const std::string& entry,
                                                 int64_t waitS) {
  auto client = connectNetd(loop, config);
  if (!client) return refuse(client.error());
  PairChannel channel(loop, std::move(*client));
  auto request = channel.client_->as<proto::Network>().listenRequest();
  request.setName(entry.c_str());
  auto listening = answerOf(loop, request.send());
  if (!listening) return refuse(Problem{"netd " + listening.error(), {}});
  if (listening->getOutcome().isRefused()) return refuse(refused(entry, listening->getOutcome().getRefused()));
  auto accept = listening->getOutcome().getListener().acceptRequest();
  const auto timeoutMs = static_cast<uint32_t>(std::min<int64_t>(waitS, 86'400) * 1000);
  accept.setTimeoutMs(timeoutMs);
  auto answer = answerOf(loop, accept.send(), timeoutMs + ANSWER_TIMEOUT_MS);
  if (!answer) return refuse(Problem{"netd " + answer.error(), {}});
  const auto outcome = answer->getOutcome();
  if (outcome.isRefused()) return refuse(refused(entry, outcome.getRefused()));
  channel.channel_ = outcome.getAccepted().getChannel();
  channel.peer_ = outcome.getAccepted().getPeer().cStr();
  return channel;
}

Result<void, Problem> PairChannel::send(std::string_view text) {
  auto request = channel_.sendRequest();
  request.initMessages(1)[0].setData(toData(asBytes(text)));
  auto answer = answerOf(*loop_, request.send());
  if (!answer) return refuse(Problem{"netd " + answer.error(), {}});
  if (answer->getOutcome().isSent()) return {};
  return refuse(Problem{"the channel to the other host is broken", {}});
}

Result<std::string, Problem> PairChannel::receive() {
  auto request = channel_.receiveRequest();
  request.setMaxMessages(1);
  request.setTimeoutMs(TEXT_TIMEOUT_MS);
  auto answer = answerOf(*loop_, request.send(), TEXT_TIMEOUT_MS + ANSWER_TIMEOUT_MS);
  if (!answer) return refuse(Problem{"netd " + answer.error(), {}});
  const auto received = answer->getReceived();
  if (received.getMessages().size() == 1) {
    const auto data = received.getMessages()[0].getData();
    return std::string(reinterpret_cast<const char*>(data.begin()), data.size());
  }
  if (received.getEnd() == proto::ChannelEnd::OPEN)
    return refuse(Problem{"the other host said nothing for two minutes", {}});
  return refuse(Problem{"the other host has closed the channel" + (received.getEnd() == proto::ChannelEnd::BROKEN
                                                                       ? ": " + sanitized(received.getReason().cStr())
                                                                       : std::string()),
                        "what does it say? is its vault up, and does its [[grant]] let it open the box?"});
}

void PairChannel::close() { (void)answerOf(*loop_, channel_.closeRequest().send()); }

}  // namespace sallyport::cli
