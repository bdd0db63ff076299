// cmd_pair.cc - sallyport pair: a fresh block on two hosts, as party A here and B there. Part of: cli.
// docs/protocol.md §14. The block travels in a box of the long-term keys, made and opened by the vaults; a channel or a
// file only carries it, so netd never sees it. What must never happen here: a block that is active on one host before
// the other has stored it; a block that is taken twice.
//
//   channel   offer -> stored, waits -> "have" -> active -> "both" -> active -> "done"
//   file      stored, waits -> file -> active there -> `--confirm FINGERPRINT` -> active
#include <algorithm>

#include "cli/commands.h"
#include "cli/key_access.h"
#include "cli/load_config.h"
#include "cli/pair_channel.h"
#include "cli/passphrase_prompt.h"
#include "cli/terminal.h"
#include "cli/vault_box.h"
#include "vaultd/block_claims.h"
#include "vaultd/key_life.h"
#include "vaultd/key_text.h"
#include "vaultd/paired_blocks.h"

namespace sallyport::cli {
namespace {

using vaultd::KeyKind;
using vaultd::LongTermSecret;
using vaultd::Problem;
using vaultd::SecretText;
using wire::PeerParty;

constexpr int64_t DEFAULT_WAIT_S = 300;
constexpr std::string_view PAIR_AGAIN = "pair again";

// The key that is to be, or to get one more block.
struct Target {
  const Arguments& arguments;
  std::string name;
  KeyFolder folder;
  std::optional<PeerParty> party;  // of the key that is there, or as the command says
  bool exists = false;
  bool vaultFollows = true;   // false: the running vault can't take the changes, and it was said what to do
  EventLoop* loop = nullptr;  // of the command: a thread has one
};

std::string shown(const PublicKey& fingerprint) { return toBase64(fingerprint.span()); }
PublicKey fingerprintOf(const LongTermSecret& block) { return vaultd::publicKeyOf(block, KeyKind::PeerBlock); }

// The error has been printed.
std::optional<Target> targetOf(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  if (checkNewName(name) != EXIT_DONE) return std::nullopt;
  Target target{arguments, name, {}, vaultd::partyOf(arguments.get("--party")), false, true, nullptr};
  auto folder = keyFolder(arguments);
  if (!folder) return std::nullopt;
  target.folder = std::move(*folder);
  std::error_code failure;
  if (!std::filesystem::exists(vaultd::keyPath(target.folder.path, name), failure)) return target;
  const auto key = vaultd::readKeyFile(target.folder.path, name);
  if (!key) {
    failProblem(key.error());
    return std::nullopt;
  }
  if (key->header.kind != KeyKind::PeerBlock || (target.party && target.party != key->header.party)) {
    fail(key->header.kind != KeyKind::PeerBlock ? "`" + name + "` is there already, and no peer-block"
                                                : "`" + name + "` is there already, and this host is party " +
                                                      std::string(vaultd::describe(*key->header.party)),
         "choose another name");
    return std::nullopt;
  }
  target.party = key->header.party;
  target.exists = true;
  return target;
}

int64_t graceOf(const Target& target) {
  const auto rule = target.folder.rotations.find(target.name);
  return rule == target.folder.rotations.end() ? RotationRule().graceS : rule->second.graceS;
}

template <typename Change>
Result<vaultd::ChangedKey, Problem> changeBlock(const Target& target, Change&& change) {
  return vaultd::changeKey(
      target.folder.path, target.name, unlocker(target.arguments, target.folder),
      [&](vaultd::EditedKey& key) -> Result<vaultd::Rewrite, Problem> {
        if (auto done = change(key.opened); !done) return refuse(done.error());
        return vaultd::Rewrite::All;
      },
      vaultd::unixNow());
}

// Durable when it says so. `awaits`: not used before it is confirmed.
Result<void, Problem> storeBlock(Target& target, const NewSeal& seal, const LongTermSecret& block, PeerParty party,
                                 bool awaits) {
  if (auto ready = vaultd::ensureClaims(target.folder.path); !ready) return refuse(ready.error());
  if (!target.exists) {
    const auto made = vaultd::importKey(target.folder.path, target.name, block, seal.sealing,
                                        {.kind = KeyKind::PeerBlock, .party = party, .unused = true, .awaits = awaits});
    if (!made) return refuse(made.error());
    // What waits is told when it is confirmed.
    if (!awaits) target.vaultFollows = tellVaultOfNew(*target.loop, target.folder, target.name);
    return {};
  }
  const auto changed = changeBlock(target, [&](vaultd::OpenedKey& key) {
    return vaultd::addBlock(key, LongTermSecret(block.expose()), graceOf(target), awaits, vaultd::unixNow());
  });
  if (!changed) return refuse(changed.error());
  // The other host may use what waits here before we do: it is let in with it meanwhile.
  target.vaultFollows = tellVault(*target.loop, target.folder, *changed,
                                  awaits ? "the running vault lets the other host in with it from now on" : USES_IT);
  return {};
}

Result<void, Problem> confirmStored(Target& target, const PublicKey& fingerprint) {
  const auto changed = changeBlock(target, [&](vaultd::OpenedKey& key) {
    return vaultd::confirmBlock(key, fingerprint, graceOf(target), vaultd::unixNow());
  });
  if (!changed) return refuse(changed.error());
  if (target.vaultFollows) target.vaultFollows = tellVault(*target.loop, target.folder, *changed);
  return {};
}

SealOrProblem sealFor(const Target& target) {
  if (target.exists) return NewSeal{};
  return sealOfNewFile(target.arguments, target.name, target.folder);
}

int finishPair(const Target& target, PeerParty party, const PublicKey& fingerprint) {
  say("`" + target.name + "` is active on both hosts; this one is party " + std::string(vaultd::describe(party)));
  say("compare the fingerprint with the other host's:");
  putLine(shown(fingerprint));
  return finishOutput();
}

// What the offer makes of this host. The error has been printed.
bool partyFits(const Target& target, const BlockOffer& offer) {
  if (!target.party || target.party == offer.party) return true;
  fail("the other host offers a block for party " + std::string(vaultd::describe(offer.party)) + ", and this host is " +
           std::string(vaultd::describe(*target.party)),
       "give --party " + std::string(vaultd::describe(wire::otherParty(*target.party))) +
           " to the other host, or use another name");
  return false;
}

// Remembers the block, then stores it.
Result<void, Problem> keepBlock(Target& target, const NewSeal& seal, const LongTermSecret& block, PeerParty party,
                                bool awaits) {
  if (auto fresh = vaultd::rememberBlock(target.folder.path, fingerprintOf(block)); !fresh) return fresh;
  return storeBlock(target, seal, block, party, awaits);
}

// Whatever is lost on the way, a second run mends it.
std::string thenPairAgain(const Problem& problem) {
  return problem.hint.empty() ? std::string(PAIR_AGAIN) : problem.hint + "; then " + std::string(PAIR_AGAIN);
}

std::string confirmHint(const Target& target, const PublicKey& fingerprint) {
  return "sallyport pair " + target.name + " --confirm " + shown(fingerprint);
}

// --- both ends of a channel ------------------------------------------------------------------------------------------

Result<void, Problem> sendSealed(PairChannel& channel, VaultBox& box, std::string_view text) {
  const auto sealed = box.seal(text);
  if (!sealed) return refuse(sealed.error());
  return channel.send(sealedText(*sealed));
}

Result<SecretText, Problem> receiveSealed(PairChannel& channel, VaultBox& box) {
  const auto text = channel.receive();
  if (!text) return refuse(text.error());
  const auto sealed = parseSealed(*text);
  if (!sealed) return refuse(sealed.error());
  return box.openFrom(*sealed);
}

Result<void, Problem> receiveWord(PairChannel& channel, VaultBox& box, PairWord word, const PublicKey& fingerprint) {
  const auto text = receiveSealed(channel, box);
  if (!text) return refuse(text.error());
  if (!isWord(text->expose(), word, fingerprint))
    return refuse(Problem{"the other host answered something else than this block's fingerprint", {}});
  return {};
}

int offerBlock(Target& target, PairChannel& channel, VaultBox& box) {
  const PeerParty party = target.party.value_or(PeerParty::A);
  const auto seal = sealFor(target);
  if (!seal) return failProblem(seal.error());
  const BlockOffer offer{wire::otherParty(party), LongTermSecret::random(KeyKind::PeerBlock)};
  const PublicKey fingerprint = fingerprintOf(offer.block);
  if (auto sent = sendSealed(channel, box, offerText(offer).expose()); !sent)
    return fail(sent.error().message, thenPairAgain(sent.error()));
  if (auto has = receiveWord(channel, box, PairWord::Have, fingerprint); !has) {
    return fail("the other host hasn't said that it has the block, so nothing was changed here: " + has.error().message,
                thenPairAgain(has.error()));
  }
  // Both hosts have it from here on: it waits there, and may be used here.
  if (auto kept = keepBlock(target, *seal, offer.block, party, false); !kept) return failProblem(kept.error());
  auto told = sendSealed(channel, box, wordText(PairWord::Both, fingerprint));
  if (told) told = receiveWord(channel, box, PairWord::Done, fingerprint);
  if (!told) {
    putLine(shown(fingerprint));
    finishOutput();
    return fail("the block is active here, and the other host hasn't said that it uses it: " + told.error().message,
                std::string(PAIR_AGAIN) + "; or if it waits there: " + confirmHint(target, fingerprint));
  }
  return finishPair(target, party, fingerprint);
}

int takeBlock(Target& target, PairChannel& channel, VaultBox& box) {
  const auto text = receiveSealed(channel, box);
  if (!text) return fail(text.error().message, thenPairAgain(text.error()));
  const auto offer = parseOffer(text->expose());
  if (!offer) return failProblem(offer.error());
  if (!partyFits(target, *offer)) return EXIT_FAILED;
  const auto seal = sealFor(target);
  if (!seal) return failProblem(seal.error());
  const PublicKey fingerprint = fingerprintOf(offer->block);
  if (auto kept = keepBlock(target, *seal, offer->block, offer->party, true); !kept) return failProblem(kept.error());
  target.exists = true;
  auto agreed = sendSealed(channel, box, wordText(PairWord::Have, fingerprint));
  if (agreed) agreed = receiveWord(channel, box, PairWord::Both, fingerprint);
  if (!agreed) {
    return fail("the other host hasn't confirmed, so the block is stored and not used: " + agreed.error().message,
                std::string(PAIR_AGAIN) + "; or if the other host uses it: " + confirmHint(target, fingerprint));
  }
  if (auto done = confirmStored(target, fingerprint); !done) {
    return fail("the other host uses the block, and here it waits: " + done.error().message,
                confirmHint(target, fingerprint));
  }
  // If this is lost the other host says so; both use the block.
  if (auto told = sendSealed(channel, box, wordText(PairWord::Done, fingerprint)); !told) warn(told.error().message);
  channel.close();
  return finishPair(target, offer->party, fingerprint);
}

const PublicKey* peerKey(const Config& config, const std::string& peer) {
  const auto found = config.peers.find(peer);
  if (found != config.peers.end()) return &found->second;
  fail("there is no peer `" + peer + "` in [peers]", "sallyport peer add " + peer + " KEY");
  return nullptr;
}

int pairByConnect(Target& target, const Config& config) {
  const auto& name = target.arguments.get("--connect");
  const ConnectEntry* entry = config.findConnect(name);
  if (entry == nullptr || entry->protocol != Protocol::Curve)
    return fail("there is no [[connect]] entry `" + name + "` with protocol curve",
                "it leads to the other host's keys");
  auto box = VaultBox::open(*target.loop, config.vault.socket, entry->key, entry->peer, config.peers.at(entry->peer));
  if (!box) return failProblem(box.error());
  auto channel = PairChannel::connect(*target.loop, config, name);
  if (!channel) return failProblem(channel.error());
  return offerBlock(target, *channel, *box);
}

int pairByListen(Target& target, const Config& config, int64_t waitS) {
  const auto& name = target.arguments.get("--listen");
  const ListenEntry* entry = config.findListen(name);
  if (entry == nullptr || entry->protocol != Protocol::Curve ||
      !std::holds_alternative<ChannelService>(entry->service)) {
    return fail("there is no [[listen]] entry `" + name + "` with protocol curve and service \"channel\"",
                "the other host connects to it");
  }
  say("waiting for the other host: there, `sallyport pair NAME --connect ENTRY`");
  auto channel = PairChannel::accept(*target.loop, config, name, waitS);
  if (!channel) return failProblem(channel.error());
  const auto* publicKey = peerKey(config, channel->peer());
  if (publicKey == nullptr) return EXIT_FAILED;
  auto box = VaultBox::open(*target.loop, config.vault.socket, entry->key, channel->peer(), *publicKey);
  if (!box) return failProblem(box.error());
  return takeBlock(target, *channel, *box);
}

// --- files -----------------------------------------------------------------------------------------------------------

int pairToFile(Target& target, const Config& config) {
  const auto& peer = target.arguments.get("--to");
  const auto* publicKey = peerKey(config, peer);
  if (publicKey == nullptr) return EXIT_FAILED;
  auto box = VaultBox::open(*target.loop, config.vault.socket, target.arguments.get("--key"), peer, *publicKey);
  if (!box) return failProblem(box.error());
  const PeerParty party = target.party.value_or(PeerParty::A);
  const auto seal = sealFor(target);
  if (!seal) return failProblem(seal.error());
  const BlockOffer offer{wire::otherParty(party), LongTermSecret::random(KeyKind::PeerBlock)};
  const PublicKey fingerprint = fingerprintOf(offer.block);
  const auto sealed = box->seal(offerText(offer).expose());
  if (!sealed) return failProblem(sealed.error());
  if (auto kept = keepBlock(target, *seal, offer.block, party, true); !kept) return failProblem(kept.error());
  say("fingerprint " + shown(fingerprint) + ", this host is party " + std::string(vaultd::describe(party)));
  say("take the file to `" + peer + "`: sallyport pair NAME --from PEER --key KEY < FILE");
  say("then here, when it shows the same fingerprint: " + confirmHint(target, fingerprint));
  put(sealedText(*sealed));
  return finishOutput();
}

int pairFromFile(Target& target, const Config& config) {
  const auto& peer = target.arguments.get("--from");
  const auto* publicKey = peerKey(config, peer);
  if (publicKey == nullptr) return EXIT_FAILED;
  const auto text = readSecretFromInput("sealed block from `" + peer + "`");
  if (!text) return failProblem(text.error());
  const auto sealed = parseSealed(text->expose());
  if (!sealed) return failProblem(sealed.error());
  auto box = VaultBox::open(*target.loop, config.vault.socket, target.arguments.get("--key"), peer, *publicKey);
  if (!box) return failProblem(box.error());
  const auto opened = box->openFrom(*sealed);
  if (!opened) return failProblem(opened.error());
  const auto offer = parseOffer(opened->expose());
  if (!offer) return failProblem(offer.error());
  if (!partyFits(target, *offer)) return EXIT_FAILED;
  const auto seal = sealFor(target);
  if (!seal) return failProblem(seal.error());
  const PublicKey fingerprint = fingerprintOf(offer->block);
  if (auto kept = keepBlock(target, *seal, offer->block, offer->party, false); !kept) return failProblem(kept.error());
  say("`" + target.name + "` is active here, as party " + std::string(vaultd::describe(offer->party)) +
      "; on the other host: sallyport pair NAME --confirm FINGERPRINT");
  putLine(shown(fingerprint));
  return finishOutput();
}

int confirmPair(Target& target) {
  const auto text = target.arguments.get("--confirm");
  PublicKey fingerprint;
  if (!vaultd::decodeExactly(text, fingerprint.mutableSpan()))
    return failUsage("`" + text + "` is no fingerprint", "the other host prints it, base64 of 32 bytes");
  if (!target.exists) return fail("there is no key `" + target.name + "`", "`sallyport key list` lists them");
  if (auto done = confirmStored(target, fingerprint); !done) return failProblem(done.error());
  say("`" + target.name + "` is active here, as party " + std::string(vaultd::describe(*target.party)));
  putLine(shown(fingerprint));
  return finishOutput();
}

}  // namespace

int pair(const Arguments& arguments) {
  constexpr auto HELP = "sallyport pair --help";
  const auto ways = std::ranges::count_if(std::array{"--connect", "--listen", "--to", "--from", "--confirm"},
                                          [&](const char* way) { return arguments.has(way); });
  if (ways != 1) return failUsage("give one of --connect, --listen, --to, --from, --confirm", HELP);
  const bool byFile = arguments.has("--to") || arguments.has("--from");
  if (byFile != arguments.has("--key"))
    return failUsage(byFile ? "with a file, name our own x25519 key: --key NAME" : "--key belongs to --to and --from",
                     HELP);
  const auto waitS = durationIn(arguments, "--wait", DEFAULT_WAIT_S);
  if (!waitS) return EXIT_USAGE;
  if (arguments.has("--party") && !vaultd::partyOf(arguments.get("--party")))
    return failUsage("`--party` is A or B, not `" + arguments.get("--party") + "`", HELP);
  auto target = targetOf(arguments);
  if (!target) return EXIT_FAILED;
  EventLoop loop;
  target->loop = &loop;
  if (arguments.has("--confirm")) return confirmPair(*target);
  const auto config = loadConfigOrFail(arguments);
  if (!config) return EXIT_FAILED;
  if (arguments.has("--connect")) return pairByConnect(*target, *config);
  if (arguments.has("--listen")) return pairByListen(*target, *config, *waitS);
  return arguments.has("--to") ? pairToFile(*target, *config) : pairFromFile(*target, *config);
}

}  // namespace sallyport::cli
