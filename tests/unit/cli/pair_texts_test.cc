// Goal: what two pairing hosts say is read back as it was written, and nothing else is taken for it.
#include "cli/pair_texts.h"

#include <gtest/gtest.h>

namespace sallyport::cli {
namespace {

using vaultd::KeyKind;
using vaultd::LongTermSecret;
using wire::PeerParty;

std::string offer() {
  return std::string(offerText({PeerParty::B, LongTermSecret::random(KeyKind::PeerBlock)}).expose());
}

TEST(PairTexts, AnOfferIsReadBack) {
  const LongTermSecret block = LongTermSecret::random(KeyKind::PeerBlock);
  const auto parsed = parseOffer(offerText({PeerParty::B, LongTermSecret(block.expose())}).expose());
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->party, PeerParty::B);
  EXPECT_TRUE(equalsConstantTime(parsed->block.expose(), block.expose()));
}

TEST(PairTexts, WhatIsNoOfferIsRefused) {
  const std::string good = offer();
  for (size_t cut = 1; cut < good.size(); cut += 7) EXPECT_FALSE(parseOffer(good.substr(0, cut)).has_value()) << cut;
  EXPECT_FALSE(parseOffer(good + "x").has_value());
  EXPECT_FALSE(parseOffer("x" + good).has_value());
  std::string other = good;
  other.replace(other.find("party: B"), 8, "party: C");
  EXPECT_FALSE(parseOffer(other).has_value());
  EXPECT_FALSE(parseOffer(wordText(PairWord::Have, PublicKey())).has_value());
  EXPECT_FALSE(parseOffer("sallyport block offer 1\nparty: A\nblock: " + toBase64(std::vector<std::byte>(128)) + "\n"))
      << "zeros";
}

TEST(PairTexts, AWordIsOfOneBlockAndOneStep) {
  PublicKey one, two;
  two.mutableSpan()[5] = std::byte{1};
  const std::string have = wordText(PairWord::Have, one);
  EXPECT_TRUE(isWord(have, PairWord::Have, one));
  EXPECT_FALSE(isWord(have, PairWord::Have, two));
  EXPECT_FALSE(isWord(have, PairWord::Both, one));
  EXPECT_FALSE(isWord(have, PairWord::Done, one));
  EXPECT_FALSE(isWord(have + "\n", PairWord::Have, one));
  EXPECT_FALSE(isWord("", PairWord::Have, one));
}

SealedText sealed() {
  SealedText text;
  fillRandom(text.from.mutableSpan());
  fillRandom(text.to.mutableSpan());
  fillRandom(text.nonce);
  text.box.resize(200);
  fillRandom(text.box);
  return text;
}

TEST(PairTexts, ASealedTextIsReadBack) {
  const SealedText text = sealed();
  const auto parsed = parseSealed(sealedText(text));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->from, text.from);
  EXPECT_EQ(parsed->to, text.to);
  EXPECT_EQ(parsed->nonce, text.nonce);
  EXPECT_EQ(parsed->box, text.box);
}

TEST(PairTexts, ASealedTextMayHaveTheLineEndsOfAnEditor) {
  const SealedText text = sealed();
  const std::string good = sealedText(text);
  std::string crlf;
  for (const char c : good) crlf += c == '\n' ? "\r\n" : std::string(1, c);
  for (const auto& changed : {good.substr(0, good.size() - 1), crlf, crlf.substr(0, crlf.size() - 2)}) {
    const auto parsed = parseSealed(changed);
    ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
    EXPECT_EQ(parsed->box, text.box);
  }
}

TEST(PairTexts, ACutOrChangedSealedTextIsRefused) {
  const SealedText whole = sealed();
  const std::string good = sealedText(whole);
  for (size_t cut = 0; cut < good.size() - 1; ++cut) {
    const auto parsed = parseSealed(good.substr(0, cut));
    if (parsed.has_value()) {  // the vault sees that the box isn't whole
      EXPECT_GT(cut, good.find("box: "));
      EXPECT_LT(parsed->box.size(), whole.box.size());
      continue;
    }
    EXPECT_NE(parsed.error().message.find("cut off"), std::string::npos) << parsed.error().message;
  }
  EXPECT_FALSE(parseSealed(good + "more\n").has_value());
  EXPECT_FALSE(parseSealed("\n" + good).has_value());
  std::string other = good;
  other[other.find("block 1") + 6] = '2';
  EXPECT_FALSE(parseSealed(other).has_value());
  other = good;
  other.replace(other.find("nonce: "), 8, "nonce: =");
  EXPECT_FALSE(parseSealed(other).has_value());
  SealedText huge = sealed();
  huge.box.resize(5000);
  EXPECT_FALSE(parseSealed(sealedText(huge)).has_value());
}

}  // namespace
}  // namespace sallyport::cli
