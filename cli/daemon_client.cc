// daemon_client.cc - see daemon_client.h.
#include "cli/daemon_client.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/log.h"

namespace sallyport::cli {
namespace {

// Answers may be large: every message of a channel, every counter of every worker.
LinkLimits clientLimits() {
  LinkLimits limits;
  limits.maxMessageBytes = 4 * 1024 * 1024;
  limits.maxSegments = 512;
  limits.maxQueuedBytes = 16 * 1024 * 1024;
  limits.stallTimeoutMs = 3'600'000;  // a daemon that makes us wait is back-pressure, not a fault
  return limits;
}

}  // namespace

Result<std::unique_ptr<DaemonClient>, std::string> DaemonClient::connect(EventLoop& loop,
                                                                         const std::filesystem::path& socket) {
  if (::access(socket.c_str(), W_OK) != 0) {
    if (errno == EACCES) return refuse("may not be asked by this user: no permission for " + socket.string());
    if (errno == ENOENT || errno == ENOTDIR) return refuse("is not running: there is no " + socket.string());
    return refuse(socket.string() + ": " + std::strerror(errno));
  }
  try {
    std::unique_ptr<DaemonClient> client(new DaemonClient);
    client->rpc_ = std::make_unique<RpcClient>(loop, connectUnix(socket), clientLimits(),
                                               [self = client.get()] { self->disconnected_ = true; });
    return client;
  } catch (const kj::Exception&) { return refuse("is not running: nobody answers on " + socket.string()); }
}

std::string describeFailure(const kj::Exception& failure) {
  switch (failure.getType()) {
    case kj::Exception::Type::DISCONNECTED: return "closed the connection without an answer";
    case kj::Exception::Type::OVERLOADED: return "doesn't answer in time";
    case kj::Exception::Type::UNIMPLEMENTED: return "is of another version: it doesn't know this call";
    case kj::Exception::Type::FAILED: break;
  }
  return "failed: " + sanitized(failure.getDescription().cStr());
}

ReloadOutcome reloadVault(EventLoop& loop, const std::filesystem::path& adminSocket, std::string_view configText) {
  auto client = DaemonClient::connect(loop, adminSocket);
  if (!client) return {false, client.error()};
  auto request = (*client)->as<proto::Admin>().reloadRequest(capnp::MessageSize{configText.size() / 8 + 64, 0});
  request.setConfig(kj::heapString(configText.data(), configText.size()));
  auto answer = answerOf(loop, request.send());
  if (!answer) return {false, answer.error()};
  const auto outcome = answer->getOutcome();
  if (outcome.isDone()) return {true, sanitized(outcome.getDone().cStr())};
  return {false, "refused: " + sanitized(outcome.getRefused().getProblem().cStr())};
}

ReloadOutcome reloadNet(EventLoop& loop, const std::filesystem::path& netSocket) {
  auto client = DaemonClient::connect(loop, netSocket);
  if (!client) return {false, client.error()};
  auto answer = answerOf(loop, (*client)->as<proto::Network>().reloadRequest().send());
  if (!answer) return {false, answer.error()};
  const auto outcome = answer->getOutcome();
  if (outcome.isDone()) return {true, sanitized(outcome.getDone().cStr())};
  return {false, "refused: " + sanitized(outcome.getRefused().getProblem().cStr())};
}

}  // namespace sallyport::cli
