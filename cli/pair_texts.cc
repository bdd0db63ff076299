#include "cli/pair_texts.h"

#include "vaultd/key_text.h"

namespace sallyport::cli {

using vaultd::Lines;
using vaultd::Problem;

namespace {

constexpr std::string_view OFFER_LINE = "sallyport block offer 1";
constexpr std::string_view SEALED_LINE = "sallyport sealed block 1";
constexpr size_t MAX_BOX_BYTES = 1024;

std::string_view lineOf(PairWord word) {
  switch (word) {
    case PairWord::Have: return "sallyport block have 1";
    case PairWord::Both: return "sallyport block both 1";
    case PairWord::Done: return "sallyport block done 1";
  }
  return "";
}

}  // namespace

vaultd::SecretText offerText(const BlockOffer& offer) {
  vaultd::SecretText text;
  CHECK(text.append(OFFER_LINE) && text.append("\nparty: ") && text.append(vaultd::describe(offer.party)) &&
        text.append("\nblock: ") && vaultd::appendBase64(text, offer.block.expose()) && text.append("\n"));
  return text;
}

Result<BlockOffer, Problem> parseOffer(std::string_view text) {
  Lines lines(text);
  BlockOffer offer;
  const auto first = lines.next();
  const auto party = vaultd::partyOf(lines.value("party").value_or(""));
  const auto block = lines.value("block");
  if (first != OFFER_LINE || !party || !block || !lines.atEnd())
    return refuse(Problem{"what the peer sent is no offer of a block", "is it the right version of sallyport?"});
  auto secret = vaultd::parseSecret(*block, vaultd::KeyKind::PeerBlock);
  if (!secret) return refuse(secret.error());
  offer.party = *party;
  offer.block = std::move(*secret);
  return offer;
}

std::string wordText(PairWord word, const PublicKey& fingerprint) {
  return std::string(lineOf(word)) + "\nfingerprint: " + toBase64(fingerprint.span()) + "\n";
}

bool isWord(std::string_view text, PairWord word, const PublicKey& fingerprint) {
  return text == wordText(word, fingerprint);
}

std::string sealedText(const SealedText& sealed) {
  return std::string(SEALED_LINE) + "\nfrom: " + toBase64(sealed.from.span()) + "\nto: " + toBase64(sealed.to.span()) +
         "\nnonce: " + toBase64(sealed.nonce) + "\nbox: " + toBase64(sealed.box) + "\n";
}

Result<SealedText, Problem> parseSealed(std::string_view given) {
  // A file that went through mail or an editor: line ends of its own, none at the end.
  std::string text(given);
  std::erase(text, '\r');
  const size_t lastEnd = text.rfind('\n');
  if (!text.empty() && !text.ends_with('\n')) text += '\n';
  Lines lines(text);
  SealedText sealed;
  const auto broken = [&](std::string_view line) {
    return refuse(Problem{lastEnd == std::string::npos || lines.position() > lastEnd
                              ? std::string("the sealed block is cut off")
                              : "not a sealed block: the line `" + std::string(line) + "` is wrong or missing",
                          "`sallyport pair NAME --to PEER` makes one"});
  };
  if (lines.next() != SEALED_LINE) return broken(SEALED_LINE);
  const auto from = lines.value("from");
  if (!from || !vaultd::decodeExactly(*from, sealed.from.mutableSpan())) return broken("from:");
  const auto to = lines.value("to");
  if (!to || !vaultd::decodeExactly(*to, sealed.to.mutableSpan())) return broken("to:");
  const auto nonce = lines.value("nonce");
  if (!nonce || !vaultd::decodeExactly(*nonce, sealed.nonce)) return broken("nonce:");
  const auto box = lines.value("box");
  auto bytes = box && box->size() <= 2 * MAX_BOX_BYTES ? fromBase64(*box) : std::nullopt;
  if (!bytes || toBase64(*bytes) != *box || !lines.atEnd()) return broken("box:");
  sealed.box = std::move(*bytes);
  return sealed;
}

}  // namespace sallyport::cli
