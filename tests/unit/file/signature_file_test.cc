// Goal: a signature file has one spelling, and is genuine for its file and key alone.
// Method: the codec with keys of our own; every character changed, every length.
#include "proto/file/signature_file.h"

#include <gtest/gtest.h>

namespace sallyport::file {
namespace {

class Signatures : public testing::Test {
 protected:
  Signatures() {
    crypto_sign_keypair(key.data(), secret.data());
    text = textOf("contents");
    crypto_sign_detached(signature.data(), nullptr, uchars(ByteSpan(text)), text.size(), secret.data());
  }
  static std::vector<std::byte> textOf(std::string_view contents) {
    FileHash hash;
    hash.add(asBytes(contents.substr(0, 3)));
    hash.add(asBytes(contents.substr(std::min<size_t>(3, contents.size()))));
    return hash.signedText();
  }

  SigningKey key;
  std::array<unsigned char, crypto_sign_SECRETKEYBYTES> secret;
  std::vector<std::byte> text;
  Signature signature;
};

TEST_F(Signatures, WhatIsSignedIsALineAndTheHash) {
  // sha512sum of "abc", FIPS 180-2.
  EXPECT_EQ(toHex(textOf("abc")), toHex(asBytes("sallyport signature 1\n")) +
                                      "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a8"
                                      "36ba3c23a3feebbd454d4423643ce80"
                                      "e2a9ac94fa54ca49f");
}

TEST_F(Signatures, AreGenuineForTheirFileAndKeyAlone) {
  EXPECT_TRUE(isGenuine(key, text, signature));
  EXPECT_FALSE(isGenuine(key, textOf("content"), signature));
  EXPECT_FALSE(isGenuine(key, asBytes("contents"), signature));
  for (size_t i = 0; i < Signature::SIZE * 8; ++i) {
    Signature changed = signature;
    changed.data()[i / 8] ^= static_cast<unsigned char>(1U << i % 8);
    EXPECT_FALSE(isGenuine(key, text, changed)) << i;
  }
  SigningKey other;
  crypto_sign_keypair(other.data(), secret.data());
  EXPECT_FALSE(isGenuine(other, text, signature));
  EXPECT_FALSE(isGenuine(SigningKey(), text, Signature())) << "a low-order key";
}

TEST_F(Signatures, HaveOneSpelling) {
  const std::string good = writeSignature({key, signature});
  EXPECT_EQ(good.size(), SIGNATURE_FILE_BYTES);
  EXPECT_EQ(parseSignature(good), (SignatureFile{key, signature}));
  for (size_t length = 0; length < good.size(); ++length) EXPECT_FALSE(parseSignature(good.substr(0, length)));
  EXPECT_FALSE(parseSignature(good + "\n"));
  EXPECT_FALSE(parseSignature(good + good));
  for (size_t at = 0; at < good.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = good;
      changed[at] = static_cast<char>(value);
      const auto parsed = parseSignature(changed);
      if (!parsed || changed == good) continue;
      EXPECT_EQ(writeSignature(*parsed), changed);
      // Nothing but digits of base64 may differ.
      EXPECT_TRUE(good[at] != '\n' && good[at] != '=' && good[at] != ' ') << at;
    }
  }
}

}  // namespace
}  // namespace sallyport::file
