// vault_client.cc - see vault_client.h.
#include "netd/vault_client.h"

#include <cstring>

#include "common/capnp_bytes.h"
#include "common/log.h"
#include "netd/vault_refusal.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {

constexpr size_t MAX_BATCH = 64;       // the vault refuses more
constexpr unsigned MAX_UNDER_WAY = 2;  // one being served, one ready behind it

template <size_t N>
bool copyExactly(wire::Block<N>& to, capnp::Data::Reader from) {
  if (from.size() != N) return false;
  std::memcpy(to.data(), from.begin(), N);
  return true;
}

// A method of Net that takes a list of questions: how a call of it begins, and how its list is made.
template <auto Begin, auto InitItems>
struct BatchCall {
  static auto begin(proto::Net::Client& net) { return (net.*Begin)(nullptr); }
  template <typename Request>
  static auto items(Request& request, uint count) {
    return (request.*InitItems)(count);
  }
};

}  // namespace

// --- one step each: how a question is written and an answer read -----------------------------------------------------

struct VaultClient::CookieStep
    : BatchCall<&proto::Net::Client::sealCookiesRequest, &proto::Net::SealCookiesParams::Builder::initHellos> {
  using Request = SealCookieRequest;
  using Answer = SealedCookie;
  static void write(proto::Hello::Builder to, const std::string& entry, const Request& request) {
    to.setEntry(entry);
    to.setClientEphemeral(toData(request.clientEphemeral.span()));
    to.setBox(toData(request.box));
    to.setServerEphemeral(toData(request.serverEphemeral.span()));
    to.setCookie(toData(request.cookie));
  }
  static Result<Answer, DropReason> read(proto::CookieOutcome::Reader outcome) {
    if (!outcome.isSealed()) return refuse(dropReasonOf(outcome.getRefused()));
    auto sealed = outcome.getSealed();
    auto nonce = LongNonceBytes::tryFrom(toBytes(sealed.getNonce()));
    Answer answer;
    if (!nonce || !copyExactly(answer.packet.box, sealed.getBox())) return refuse(DropReason::VaultRefused);
    answer.packet.nonce = *nonce;
    return answer;
  }
};

struct VaultClient::VerifyStep
    : BatchCall<&proto::Net::Client::verifyVouchesRequest, &proto::Net::VerifyVouchesParams::Builder::initVouches> {
  using Request = VerifyVouchRequest;
  using Answer = VerifiedVouch;
  static void write(proto::Vouch::Builder to, const std::string& entry, const Request& request) {
    to.setEntry(entry);
    to.setClient(toData(request.client.span()));
    to.setNonce(toData(request.nonce.span()));
    to.setBox(toData(request.box));
    to.setClientEphemeral(toData(request.clientEphemeral.span()));
  }
  static Result<Answer, DropReason> read(proto::VouchOutcome::Reader outcome) {
    if (outcome.isPeer()) return Answer{std::string(outcome.getPeer())};
    const DropReason reason = dropReasonOf(outcome.getRefused());
    return refuse(reason == DropReason::BadBox ? DropReason::BadVouch : reason);
  }
};

struct VaultClient::MakeStep
    : BatchCall<&proto::Net::Client::makeVouchesRequest, &proto::Net::MakeVouchesParams::Builder::initRequests> {
  using Request = MakeVouchRequest;
  using Answer = MadeVouch;
  static void write(proto::VouchRequest::Builder to, const std::string& entry, const Request& request) {
    to.setEntry(entry);
    to.setClientEphemeral(toData(request.clientEphemeral.span()));
  }
  static Result<Answer, DropReason> read(proto::MadeVouchOutcome::Reader outcome) {
    if (!outcome.isMade()) return refuse(dropReasonOf(outcome.getRefused()));
    auto made = outcome.getMade();
    auto client = PublicKey::tryFrom(toBytes(made.getClient()));
    auto nonce = LongNonceBytes::tryFrom(toBytes(made.getNonce()));
    Answer answer;
    if (!client || !nonce || !copyExactly(answer.box, made.getBox())) return refuse(DropReason::VaultRefused);
    answer.client = *client;
    answer.nonce = *nonce;
    return answer;
  }
};

namespace {
void writePeerEntry(proto::PeerEntry::Builder to, const std::string& entry, bool listen) {
  to.setName(entry);
  to.setListen(listen);
}

wire::PeerParty partyOf(proto::PeerParty party) {
  return party == proto::PeerParty::A ? wire::PeerParty::A : wire::PeerParty::B;
}

template <typename Outcome>
Result<PeerSecrets, DropReason> readSecrets(Outcome outcome) {
  const auto send = toBytes(outcome.getSendSecret());
  const auto receive = toBytes(outcome.getReceiveSecret());
  if (send.size() != wire::PEER_SECRET_BYTES || receive.size() != wire::PEER_SECRET_BYTES)
    return refuse(DropReason::VaultRefused);
  return PeerSecrets{peer::SendSecret(send.template first<wire::PEER_SECRET_BYTES>()),
                     peer::ReceiveSecret(receive.template first<wire::PEER_SECRET_BYTES>()), outcome.getVersion()};
}
}  // namespace

struct VaultClient::PeerSaltStep
    : BatchCall<&proto::Net::Client::peerSaltsRequest, &proto::Net::PeerSaltsParams::Builder::initEntries> {
  using Request = PeerSaltRequest;
  using Answer = PeerSaltDrawn;
  static void write(proto::PeerEntry::Builder to, const std::string& entry, const Request& request) {
    writePeerEntry(to, entry, request.listen);
  }
  static Result<Answer, DropReason> read(proto::PeerSaltOutcome::Reader outcome) {
    if (!outcome.isDrawn()) return refuse(dropReasonOf(outcome.getRefused()));
    const auto drawn = outcome.getDrawn();
    const auto salt = wire::PeerSalt::tryFrom(toBytes(drawn.getSalt()));
    if (!salt) return refuse(DropReason::VaultRefused);
    return Answer{partyOf(drawn.getParty()), *salt, drawn.getVersion()};
  }
};

struct VaultClient::PeerKeysStep
    : BatchCall<&proto::Net::Client::peerKeysRequest, &proto::Net::PeerKeysParams::Builder::initRequests> {
  using Request = PeerKeysRequest;
  using Answer = PeerSecrets;
  static void write(proto::PeerKeysRequest::Builder to, const std::string& entry, const Request& request) {
    writePeerEntry(to.initEntry(), entry, request.listen);
    to.setOwnSalt(toData(request.ownSalt.span()));
    to.setPeerSalt(toData(request.peerSalt.span()));
  }
  static Result<Answer, DropReason> read(proto::PeerKeysOutcome::Reader outcome) {
    if (!outcome.isDerived()) return refuse(dropReasonOf(outcome.getRefused()));
    return readSecrets(outcome.getDerived());
  }
};

struct VaultClient::PeerAcceptStep
    : BatchCall<&proto::Net::Client::peerAcceptRequest, &proto::Net::PeerAcceptParams::Builder::initRequests> {
  using Request = PeerAcceptRequest;
  using Answer = PeerAccepted;
  static void write(proto::PeerAcceptRequest::Builder to, const std::string& entry, const Request& request) {
    writePeerEntry(to.initEntry(), entry, true);
    to.setPeerSalt(toData(request.peerSalt.span()));
  }
  static Result<Answer, DropReason> read(proto::PeerAcceptOutcome::Reader outcome) {
    if (!outcome.isAccepted()) return refuse(dropReasonOf(outcome.getRefused()));
    const auto accepted = outcome.getAccepted();
    const auto salt = wire::PeerSalt::tryFrom(toBytes(accepted.getOwnSalt()));
    auto secrets = readSecrets(accepted);
    if (!salt || !secrets) return refuse(DropReason::VaultRefused);
    Answer answer{partyOf(accepted.getParty()), *salt, std::move(*secrets), {}};
    for (const auto each : accepted.getOthers()) {
      auto other = readSecrets(each);
      if (!other) return refuse(DropReason::VaultRefused);
      answer.others.push_back(std::move(*other));
    }
    return answer;
  }
};

// --- questions -------------------------------------------------------------------------------------------------------

template <typename Step>
struct VaultClient::Call {
  std::string entry;
  typename Step::Request request;
  OnAnswer<typename Step::Answer> onAnswer;  // empty: withdrawn

  void answer(Result<typename Step::Answer, DropReason> result) {
    if (auto callback = std::move(onAnswer)) {
      onAnswer = nullptr;
      callback(std::move(result));
    }
  }
};

template <typename Step>
class VaultClient::Handle final : public Question {
 public:
  Handle(std::shared_ptr<Call<Step>> call, std::shared_ptr<Queue<Step>> queue)
      : call_(std::move(call)), queue_(std::move(queue)) {}
  ~Handle() override {
    if (!call_->onAnswer) return;
    call_->onAnswer = nullptr;
    queue_->withdraw();
  }

 private:
  std::shared_ptr<Call<Step>> call_;
  std::shared_ptr<Queue<Step>> queue_;  // the client may die first
};

template <typename Step>
struct VaultClient::Queue {
  std::deque<std::shared_ptr<Call<Step>>> waiting;
  unsigned underWay = 0;
  size_t withdrawn = 0;  // at most, of those in `waiting`

  // A question's connection is gone. While the vault is away nobody takes them out, so they must not pile up.
  void withdraw() {
    if (++withdrawn < MAX_BATCH || withdrawn * 2 < waiting.size()) return;
    std::erase_if(waiting, [](const auto& call) { return !call->onAnswer; });
    withdrawn = 0;
  }
};

VaultClient::VaultClient(EventLoop& loop, Stats& stats, std::function<void()> onLost)
    : loop_(loop),
      stats_(stats),
      onLost_(std::move(onLost)),
      cookies_(std::make_shared<Queue<CookieStep>>()),
      verifies_(std::make_shared<Queue<VerifyStep>>()),
      makes_(std::make_shared<Queue<MakeStep>>()),
      salts_(std::make_shared<Queue<PeerSaltStep>>()),
      keys_(std::make_shared<Queue<PeerKeysStep>>()),
      accepts_(std::make_shared<Queue<PeerAcceptStep>>()),
      gate_(std::make_shared<CallGate>()),
      alive_(std::make_shared<bool>(true)) {}

VaultClient::~VaultClient() { *alive_ = false; }

size_t VaultClient::waiting() const {
  return cookies_->waiting.size() + verifies_->waiting.size() + makes_->waiting.size() + salts_->waiting.size() +
         keys_->waiting.size() + accepts_->waiting.size();
}

void VaultClient::connect(int fd) {
  net_ = nullptr;
  client_ = nullptr;
  pools_.clear();  // the next vault knows none of their salts
  const uint64_t generation = ++generation_;
  cookies_->underWay = verifies_->underWay = makes_->underWay = salts_->underWay = 0;
  keys_->underWay = accepts_->underWay = 0;
  client_ = std::make_unique<RpcClient>(loop_, fd, LinkLimits{}, [this, generation, alive = alive_] {
    // Not inside the connection's own callback.
    loop_.defer([this, generation, alive] {
      if (*alive && generation == generation_) lost();
    });
  });
  net_ = client_->bootstrap().castAs<proto::Net>();
  schedule();
}

void VaultClient::lost() {
  if (client_ == nullptr) return;
  net_ = nullptr;
  client_ = nullptr;
  pools_.clear();  // the next vault knows none of their salts
  ++generation_;
  logWarning("vault lost: new handshakes wait for it, sessions go on");
  onLost_();
}

template <typename Step>
std::unique_ptr<VaultClient::Question> VaultClient::ask(const std::shared_ptr<Queue<Step>>& queue,
                                                        const std::string& entry, typename Step::Request request,
                                                        OnAnswer<typename Step::Answer> onAnswer) {
  auto call = std::make_shared<Call<Step>>(Call<Step>{entry, std::move(request), std::move(onAnswer)});
  queue->waiting.push_back(call);
  schedule();
  return std::make_unique<Handle<Step>>(std::move(call), queue);
}

std::unique_ptr<VaultClient::Question> VaultClient::sealCookie(const std::string& entry, SealCookieRequest request,
                                                               OnAnswer<SealedCookie> onAnswer) {
  return ask(cookies_, entry, std::move(request), std::move(onAnswer));
}
std::unique_ptr<VaultClient::Question> VaultClient::verifyVouch(const std::string& entry, VerifyVouchRequest request,
                                                                OnAnswer<VerifiedVouch> onAnswer) {
  return ask(verifies_, entry, std::move(request), std::move(onAnswer));
}
std::unique_ptr<VaultClient::Question> VaultClient::makeVouch(const std::string& entry, MakeVouchRequest request,
                                                              OnAnswer<MadeVouch> onAnswer) {
  return ask(makes_, entry, std::move(request), std::move(onAnswer));
}

std::unique_ptr<VaultClient::Question> VaultClient::drawPeerSalt(const std::string& entry, PeerSaltRequest request,
                                                                 OnAnswer<PeerSaltDrawn> onAnswer) {
  return ask(salts_, entry, request, std::move(onAnswer));
}

std::optional<PeerSaltDrawn> VaultClient::takePeerSalt(const std::string& entry, uint64_t lifeMs) {
  std::unique_ptr<Pool>& slot = pools_[entry];
  if (slot == nullptr) slot = std::make_unique<Pool>();
  Pool& pool = *slot;
  auto salt = pool.salts.take(loop_.nowMs(), lifeMs);
  for (size_t missing = net_ == nullptr ? 0 : pool.salts.missing(); missing > 0; --missing) {
    pool.salts.asked();
    const uint64_t number = pool.next++;
    auto question = drawPeerSalt(entry, {.listen = false}, [&pool, number, askedMs = loop_.nowMs()](auto drawn) {
      pool.salts.answered(drawn ? std::optional(*drawn) : std::nullopt, askedMs);
      pool.questions.erase(number);
    });
    pool.questions.emplace(number, std::move(question));
  }
  return salt;
}

std::unique_ptr<VaultClient::Question> VaultClient::derivePeerKeys(const std::string& entry, PeerKeysRequest request,
                                                                   OnAnswer<PeerSecrets> onAnswer) {
  return ask(keys_, entry, request, std::move(onAnswer));
}
std::unique_ptr<VaultClient::Question> VaultClient::acceptPeer(const std::string& entry, PeerAcceptRequest request,
                                                               OnAnswer<PeerAccepted> onAnswer) {
  return ask(accepts_, entry, request, std::move(onAnswer));
}

std::unique_ptr<VaultClient::Question> VaultClient::openPeerSession(const std::string& entry, bool listen,
                                                                    ByteSpan first, OnAnswer<BegunSession> onAnswer) {
  struct Asked final : Question {
    ~Asked() override { *answer = nullptr; }
    std::shared_ptr<OnAnswer<BegunSession>> answer;
    std::shared_ptr<bool> wanted = std::make_shared<bool>(true);  // held by nobody else
  };
  auto asked = std::make_unique<Asked>();
  asked->answer = std::make_shared<OnAnswer<BegunSession>>(std::move(onAnswer));
  // The gate may hold this as long as it waits, so this doesn't hold the gate.
  const auto tell = [answer = asked->answer, weak = std::weak_ptr(gate_)](Result<BegunSession, DropReason> result) {
    if (const auto gate = weak.lock()) gate->leave();
    if (const auto callback = std::exchange(*answer, nullptr)) callback(std::move(result));
  };
  gate_->enter(asked->wanted,
               [this, tell, entry, listen, bytes = std::vector<std::byte>(first.begin(), first.end()), alive = alive_] {
                 if (*alive) beginPeerSession(entry, listen, bytes, tell);
               });
  return asked;
}

void VaultClient::beginPeerSession(const std::string& entry, bool listen, ByteSpan first,
                                   const std::function<void(Result<BegunSession, DropReason>)>& tell) {
  KJ_IF_MAYBE (net, net_) {
    auto request = net->peerSessionRequest();
    writePeerEntry(request.initEntry(), entry, listen);
    if (!first.empty()) request.setFirst(toData(first));
    stats_.add(Counter::VaultCalls);
    stats_.add(Counter::VaultItems);
    request.send()
        .then(
            [tell, gate = gate_, alive = alive_](auto&& response) {
              if (!*alive) return;
              auto outcome = response.getOutcome();
              if (outcome.isRefused()) return tell(refuse(dropReasonOf(outcome.getRefused())));
              auto begun = outcome.getBegun();
              BegunSession session{std::make_unique<BaseSession>(gate, begun.getSession()), {}};
              if (begun.hasOpened()) {
                auto opened = BaseSession::read(begun.getOpened());
                if (!opened) return tell(refuse(opened.error()));
                session.opened = *opened;
              }
              tell(std::move(session));
            },
            [tell, alive = alive_](kj::Exception&& failure) {
              if (!*alive) return;
              const bool lost = failure.getType() == kj::Exception::Type::DISCONNECTED;
              tell(refuse(lost ? DropReason::VaultUnavailable : DropReason::VaultRefused));
            })
        .detach([](kj::Exception&&) { logError("an answer of the vault could not be handled"); });
  } else {
    loop_.defer([tell, alive = alive_] {
      if (*alive) tell(refuse(DropReason::VaultUnavailable));
    });
  }
}

// The questions of one turn leave together.
void VaultClient::schedule() {
  if (scheduled_) return;
  scheduled_ = true;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    scheduled_ = false;
    pump(*verifies_);  // who is nearly in comes first
    pump(*keys_);
    pump(*accepts_);
    pump(*makes_);
    pump(*salts_);
    pump(*cookies_);
  });
}

template <typename Step>
void VaultClient::pump(Queue<Step>& queue) {
  KJ_IF_MAYBE (net, net_) {
    while (queue.underWay < MAX_UNDER_WAY && !queue.waiting.empty()) {
      auto batch = std::make_shared<std::vector<std::shared_ptr<Call<Step>>>>();
      while (!queue.waiting.empty() && batch->size() < MAX_BATCH) {
        if (queue.waiting.front()->onAnswer) batch->push_back(std::move(queue.waiting.front()));
        queue.waiting.pop_front();
      }
      if (batch->empty()) return;
      auto request = Step::begin(*net);
      auto items = Step::items(request, static_cast<uint>(batch->size()));
      for (uint i = 0; i < batch->size(); ++i) Step::write(items[i], (*batch)[i]->entry, (*batch)[i]->request);
      ++queue.underWay;
      stats_.add(Counter::VaultCalls);
      stats_.add(Counter::VaultItems, batch->size());
      const uint64_t generation = generation_;
      request.send()
          .then(
              [this, &queue, batch, generation, alive = alive_](auto&& response) {
                if (!*alive) return;
                if (generation == generation_) --queue.underWay;
                auto outcomes = response.getOutcomes();
                for (uint i = 0; i < batch->size(); ++i) {
                  if (i < outcomes.size())
                    (*batch)[i]->answer(Step::read(outcomes[i]));
                  else
                    (*batch)[i]->answer(refuse(DropReason::VaultRefused));
                }
                schedule();
              },
              [this, &queue, batch, generation, alive = alive_](kj::Exception&& e) {
                if (!*alive) return;
                if (generation == generation_) --queue.underWay;
                if (e.getType() == kj::Exception::Type::DISCONNECTED) {
                  // The vault went away in the middle: asked again when it is back.
                  queue.waiting.insert(queue.waiting.begin(), batch->begin(), batch->end());
                } else {
                  for (auto& call : *batch) call->answer(refuse(DropReason::VaultRefused));
                }
                schedule();
              })
          .detach([](kj::Exception&&) { logError("an answer of the vault could not be handled"); });
    }
  }
}

}  // namespace sallyport::netd
