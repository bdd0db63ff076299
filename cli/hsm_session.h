// hsm_session.h - an hsmd of our own, for one command: started, given its PIN, asked, ended. Part of: cli. docs/hsm.md.
// The module is loaded there and never here. What must never happen here: a PIN or a secret in an argument or in the
// environment, a PIN tried twice.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "cli/arguments.h"
#include "cli/key_access.h"
#include "hsmlink/hsm_link.h"

namespace sallyport::cli {

// [token.NAME] of the configuration.
Result<const TokenConfig*, vaultd::Problem> findToken(const KeyFolder& folder, const std::string& name);

// From --pin-file FILE, --pin-fd N, or the terminal.
Result<vaultd::SecretText, vaultd::Problem> askPin(const Arguments& arguments, const std::string& token);

class HsmSession final : private hsmlink::HsmLink::Events {
 public:
  template <typename T>
  using OrProblem = Result<T, vaultd::Problem>;

  // Waits until the module is loaded and has its PIN: the configured one, or an operator's. `asOperator`: keys can be
  // made.
  static OrProblem<std::unique_ptr<HsmSession>> open(const Arguments& arguments, const KeyFolder& folder,
                                                     const std::string& token, bool asOperator);
  ~HsmSession() noexcept(false) {}

  // The answer, if it is the verb's own kind. `in` goes into a slot, 64 bytes of which come back in `out` if it is
  // given.
  using SlotCopy = SecretBytes<struct CliSlotTag, hsm::SLOT_BYTES>;
  template <typename Answer>
  OrProblem<Answer> ask(hsm::Ask ask, ByteSpan in = {}, SlotCopy* out = nullptr) {
    auto reply = send(std::move(ask), in, out);
    if (!reply) return refuse(reply.error());
    return std::get<Answer>(reply->answer);
  }
  // As the token answered it, a refusal too.
  OrProblem<hsm::Reply> answerTo(hsm::Ask ask, ByteSpan in = {}, SlotCopy* out = nullptr);
  OrProblem<std::vector<hsm::KeyInfo>> keys();
  // What an operator's module was tried with.
  OrProblem<std::vector<hsm::ProbeReply>> trials();
  const hsm::HelloReply& hello() const { return hello_; }
  const std::vector<std::string>& layers() const { return layers_; }
  const std::string& token() const { return token_; }

 private:
  HsmSession(EventLoop& loop, hsmlink::KeeperEnds ends, const TokenConfig& config);
  void onControl(const hsm::Control& control) override;
  void onKill(hsm::KillReason) override {}  // who asked hears why
  void onEnd() override { ended_ = true; }
  OrProblem<hsm::Reply> send(hsm::Ask ask, ByteSpan in, SlotCopy* out);
  hsmlink::Outcome exchange(hsm::Ask ask, ByteSpan in, SlotCopy* out, uint64_t deadlineMs);
  // One that is up, of another epoch than `before`; 0: the first.
  Result<void, vaultd::Problem> waitForWorker(uint32_t before);
  // Of a worker that was too late: then what hsmd logs of it stands above our own error, which is the last thing said.
  void waitForEnd();
  Result<void, vaultd::Problem> logIn(const Arguments& arguments);

  std::unique_ptr<EventLoop> ownLoop_;
  EventLoop& loop_;
  std::string token_;
  uint64_t stepMs_;
  hsm::HelloReply hello_;
  std::vector<std::string> layers_;
  std::optional<hsm::WorkerUp> up_;
  std::optional<hsm::WorkerDied> died_;
  bool ended_ = false;
  std::optional<hsmlink::HsmLink> link_;
};

// Has the token make a key, or take one: `ask` is a Generate or an Import, whose secret is `in`. Says by its trials why
// it can't.
Result<hsm::KeyInfo, vaultd::Problem> makeOrTake(HsmSession& session, const hsm::Ask& ask, ByteSpan in = {});
// A new key for `kind` in the token, proved there.
Result<vaultd::TokenKey, vaultd::Problem> makeTokenKey(HsmSession& session, vaultd::KeyKind kind,
                                                       const std::string& label);
// What a reply about a key says, as a key file keeps it; a problem if it can't be used.
Result<vaultd::TokenKey, vaultd::Problem> usableKey(const hsm::KeyInfo& info, vaultd::KeyKind kind);
// The secret of the first slot of `header` that a token of the configuration opens.
Result<vaultd::SlotSecret, vaultd::Problem> unwrapByToken(const Arguments& arguments, const KeyFolder& folder,
                                                          const vaultd::KeyHeader& header);

}  // namespace sallyport::cli
