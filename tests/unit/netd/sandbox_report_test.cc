// Goal: a worker that was taken over can write what it likes about its sandbox; the monitor shows harmless text.
// Method: reports there and back, then texts that are no reports.
#include "netd/sandbox_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace sallyport::netd {
namespace {

bool harmless(std::string_view text) {
  return text.size() <= 4 * 200 + 3 && std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
}
bool harmless(const ReportedSandbox& report) {
  return harmless(report.verdict) && std::ranges::all_of(report.layers, [](const ReportedLayer& layer) {
           return harmless(layer.name) && harmless(layer.state) && harmless(layer.detail);
         });
}

TEST(ASandboxReport, ArrivesAsItWas) {
  sandbox::Report report;
  report.layers = {{"seccomp", sandbox::LayerState::Active, "34 calls", true},
                   {"landlock", sandbox::LayerState::Unavailable, "not in this kernel", false}};
  const ReportedSandbox read = decodeReport(encodeReport(report));
  EXPECT_EQ(read.verdict, "degraded");
  ASSERT_EQ(read.layers.size(), 2u);
  EXPECT_EQ(read.layers[0].name, "seccomp");
  EXPECT_EQ(read.layers[0].state, "active");
  EXPECT_EQ(read.layers[0].detail, "34 calls");
  EXPECT_EQ(read.layers[1].state, "unavailable");
}

TEST(ASandboxReport, CannotHaveALayerHiddenInADetail) {
  sandbox::Report report;
  report.layers = {{"root", sandbox::LayerState::Failed, "no\nseccomp\tactive\tall is well", true}};
  const ReportedSandbox read = decodeReport(encodeReport(report));
  ASSERT_EQ(read.layers.size(), 1u);
  EXPECT_EQ(read.layers[0].state, "failed");
}

TEST(ASandboxReport, OfNothingIsNothing) {
  EXPECT_EQ(decodeReport("").verdict, "");
  EXPECT_TRUE(decodeReport("").layers.empty());
  EXPECT_EQ(decodeReport("full").verdict, "full");
  EXPECT_TRUE(decodeReport("full\n").layers.empty());
}

TEST(ASandboxReport, WithMissingFieldsHasEmptyOnes) {
  const ReportedSandbox read = decodeReport("full\nseccomp\n\t\t\nroot\tactive\na\tb\tc\td\n");
  ASSERT_EQ(read.layers.size(), 4u);
  EXPECT_EQ(read.layers[0].state, "");
  EXPECT_EQ(read.layers[1].name, "");
  EXPECT_EQ(read.layers[2].detail, "");
  EXPECT_TRUE(read.layers[3].detail.starts_with("c"));
}

TEST(ASandboxReport, OfAnySizeStaysSmall) {
  std::string text = std::string(100000, 'v') + "\n";
  for (int i = 0; i < 5000; ++i) text += std::string(1000, 'n') + "\t" + std::string(1000, '\x1b') + "\td\n";
  const ReportedSandbox read = decodeReport(text);
  EXPECT_EQ(read.layers.size(), 32u);
  EXPECT_TRUE(harmless(read));
  EXPECT_EQ(decodeReport(std::string(100000, '\n')).layers.size(), 32u);
}

TEST(ASandboxReport, OfNoiseIsHarmless) {
  std::mt19937 random(11);  // NOLINT: the same noise every time
  for (int round = 0; round < 500; ++round) {
    std::string noise(random() % 400, '\0');
    for (char& c : noise) c = random() % 5 == 0 ? "\n\t"[random() % 2] : static_cast<char>(random());
    EXPECT_TRUE(harmless(decodeReport(noise)));
  }
  EXPECT_TRUE(harmless(decodeReport(std::string_view("\0\0\n\0\t\0\t\0", 8))));
}

}  // namespace
}  // namespace sallyport::netd
