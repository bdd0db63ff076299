// vault_client.cc - see vault_client.h.
#include "netd/vault_client.h"

#include "common/log.h"
#include "netd/vault_lane.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {
constexpr uint32_t KEEP_READ_MS = 20;
}  // namespace

VaultClient::VaultClient(EventLoop& loop, Stats& stats, std::function<void()> onLost)
    : loop_(loop),
      stats_(stats),
      onLost_(std::move(onLost)),
      gate_(std::make_shared<CallGate>()),
      alive_(std::make_shared<bool>(true)) {}

VaultClient::~VaultClient() { *alive_ = false; }

size_t VaultClient::waiting() const {
  size_t waiting = 0;
  for (const auto& [key, lane] : lanes_) waiting += lane->waiting();
  return waiting;
}

void VaultClient::connect(int fd) {
  disconnect();
  const uint64_t generation = generation_;
  client_ = std::make_unique<RpcClient>(loop_, fd, LinkLimits{}, [this, generation, alive = alive_] {
    // Not inside the connection's own callback.
    loop_.defer([this, generation, alive] {
      if (*alive && generation == generation_) lost();
    });
  });
  net_ = client_->bootstrap().castAs<proto::Net>();
  schedule();
}

void VaultClient::disconnect() {
  net_ = nullptr;
  read_.clear();
  client_ = nullptr;
  pools_.clear();  // the next vault knows none of their salts
  ++generation_;
}

void VaultClient::lost() {
  if (client_ == nullptr) return;
  disconnect();
  logWarning("vault lost: new handshakes wait for it; sessions go on, but those in base mode end");
  onLost_();
}

// --- questions -------------------------------------------------------------------------------------------------------

template <typename Step>
std::unique_ptr<VaultClient::Question> VaultClient::ask(const Entry& entry, typename Step::Request request,
                                                        OnAnswer<typename Step::Answer> onAnswer) {
  std::shared_ptr<VaultLane>& lane = lanes_[entry.vaultKey];
  if (lane == nullptr) lane = std::make_shared<VaultLane>();
  auto call = std::make_shared<VaultCall<Step>>(VaultCall<Step>{entry.name, std::move(request), std::move(onAnswer)});
  lane->queue<Step>().add(call);
  schedule();
  return std::make_unique<VaultQuestion<Step>>(std::move(call), lane);
}

std::unique_ptr<VaultClient::Question> VaultClient::sealCookie(const Entry& entry, SealCookieRequest request,
                                                               OnAnswer<SealedCookie> onAnswer) {
  return ask<CookieStep>(entry, std::move(request), std::move(onAnswer));
}
std::unique_ptr<VaultClient::Question> VaultClient::verifyVouch(const Entry& entry, VerifyVouchRequest request,
                                                                OnAnswer<VerifiedVouch> onAnswer) {
  return ask<VerifyStep>(entry, std::move(request), std::move(onAnswer));
}
std::unique_ptr<VaultClient::Question> VaultClient::makeVouch(const Entry& entry, MakeVouchRequest request,
                                                              OnAnswer<MadeVouch> onAnswer) {
  return ask<MakeStep>(entry, std::move(request), std::move(onAnswer));
}

std::unique_ptr<VaultClient::Question> VaultClient::drawPeerSalt(const Entry& entry, PeerSaltRequest request,
                                                                 OnAnswer<PeerSaltDrawn> onAnswer) {
  return ask<PeerSaltStep>(entry, request, std::move(onAnswer));
}

std::optional<PeerSaltDrawn> VaultClient::takePeerSalt(const Entry& entry, uint64_t lifeMs) {
  std::unique_ptr<Pool>& slot = pools_[entry.name];
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

std::unique_ptr<VaultClient::Question> VaultClient::derivePeerKeys(const Entry& entry, PeerKeysRequest request,
                                                                   OnAnswer<PeerSecrets> onAnswer) {
  return ask<PeerKeysStep>(entry, request, std::move(onAnswer));
}
std::unique_ptr<VaultClient::Question> VaultClient::acceptPeer(const Entry& entry, PeerAcceptRequest request,
                                                               OnAnswer<PeerAccepted> onAnswer) {
  return ask<PeerAcceptStep>(entry, request, std::move(onAnswer));
}

std::unique_ptr<VaultClient::Question> VaultClient::openPeerSession(const Entry& entry, bool listen, ByteSpan first,
                                                                    OnAnswer<BegunSession> onAnswer) {
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
  gate_->enter(asked->wanted, [this, tell, entry = entry.name, listen,
                               bytes = std::vector<std::byte>(first.begin(), first.end()), alive = alive_] {
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
            [tell, gate = gate_, alive = alive_, given = first.size()](auto&& response) {
              if (!*alive) return;
              auto outcome = response.getOutcome();
              if (outcome.isRefused()) return tell(refuse(dropReasonOf(outcome.getRefused())));
              auto begun = outcome.getBegun();
              BegunSession session{std::make_unique<BaseSession>(gate, begun.getSession()), {}};
              if (begun.hasOpened()) {
                auto opened = BaseSession::read(begun.getOpened(), given);
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
    pump();
  });
}

void VaultClient::pump() {
  KJ_IF_MAYBE (net, net_) {
    pumpEach<VerifyStep>(*net);  // who is nearly in comes first
    pumpEach<PeerKeysStep>(*net);
    pumpEach<PeerAcceptStep>(*net);
    pumpEach<MakeStep>(*net);
    pumpEach<PeerSaltStep>(*net);
    pumpEach<CookieStep>(*net);
    std::erase_if(lanes_, [](const auto& lane) { return lane.second->idle(); });
  }
}

// One lane after the other has its turn for one call, as long as one of them begins any. Who had the last one is last
// when there is room again.
template <typename Step>
void VaultClient::pumpEach(proto::Net::Client& net) {
  for (size_t passed = 0; passed < lanes_.size();) {
    auto next = lanes_.upper_bound(lastTurn_);
    if (next == lanes_.end()) next = lanes_.begin();
    lastTurn_ = next->first;
    passed = beginCall<Step>(net, next->second) ? 0 : passed + 1;
  }
}

// An answer that goes sends its Finish: a system call here, and one and a wake-up in the vault, for nothing that
// anybody waits for. So it goes along with the next call. (Answers with keys are wiped as they go: common/link.h.)
void VaultClient::keepRead(std::shared_ptr<void> answer) {
  read_.push_back(std::move(answer));
  if (letGoArmed_) return;
  letGoArmed_ = true;
  letGo_ = loop_.timer()
               .afterDelay(KEEP_READ_MS * kj::MILLISECONDS)
               .then([this] {
                 letGoArmed_ = false;
                 read_.clear();
               })
               .eagerlyEvaluate(nullptr);
}

template <typename Step>
bool VaultClient::beginCall(proto::Net::Client& net, const std::shared_ptr<VaultLane>& lane) {
  auto& queue = lane->queue<Step>();
  if (!queue.mayBegin() || !room_.admits(lane->calls)) return false;
  auto batch = std::make_shared<typename VaultQueue<Step>::Batch>(queue.take());
  if (batch->empty()) return false;
  ++lane->calls;
  room_.enter(batch->size());
  stats_.add(Counter::VaultCalls);
  stats_.add(Counter::VaultItems, batch->size());
  read_.clear();
  auto request = Step::begin(net);
  auto items = Step::items(request, static_cast<uint>(batch->size()));
  for (uint i = 0; i < batch->size(); ++i) Step::write(items[i], (*batch)[i]->entry, (*batch)[i]->request);
  const auto ended = [this, lane, batch] {
    lane->queue<Step>().ended();
    --lane->calls;
    room_.leave(batch->size());
  };
  request.send()
      .then(
          [this, ended, batch, alive = alive_](auto&& response) {
            if (!*alive) return;
            ended();
            auto outcomes = response.getOutcomes();
            for (uint i = 0; i < batch->size(); ++i) {
              if (i < outcomes.size())
                (*batch)[i]->answer(Step::read(outcomes[i]));
              else
                (*batch)[i]->answer(refuse(DropReason::VaultRefused));
            }
            keepRead(std::make_shared<kj::Decay<decltype(response)>>(kj::mv(response)));
            schedule();
          },
          [this, ended, lane, batch, alive = alive_](kj::Exception&& e) {
            if (!*alive) return;
            ended();
            if (e.getType() == kj::Exception::Type::DISCONNECTED) {
              // The vault went away in the middle: asked again when it is back.
              lane->queue<Step>().putBack(*batch);
            } else {
              for (auto& call : *batch) call->answer(refuse(DropReason::VaultRefused));
            }
            schedule();
          })
      .detach([](kj::Exception&&) { logError("an answer of the vault could not be handled"); });
  return true;
}

}  // namespace sallyport::netd
