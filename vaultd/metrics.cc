#include "vaultd/metrics.h"

#include "vaultd/tokens.h"

namespace sallyport::vaultd {

namespace {

constexpr std::string_view PREFIX = "sallyport_vault_";

class Page {
 public:
  void type(std::string_view name, std::string_view kind) {
    text_.append("# TYPE ").append(PREFIX).append(name).append(" ").append(kind).append("\n");
  }
  void value(std::string_view name, std::string_view labels, const std::string& value) {
    text_.append(PREFIX).append(name).append(labels).append(" ").append(value).append("\n");
  }
  void value(std::string_view name, std::string_view labels, uint64_t number) {
    value(name, labels, std::to_string(number));
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

std::string seconds(uint64_t ns) {
  std::string digits = std::to_string(ns % 1'000'000'000);
  return std::to_string(ns / 1'000'000'000) + "." + std::string(9 - digits.size(), '0') + digits;
}

void addHistogram(Page& page, const std::string& name, Verb verb, const Log2Histogram& histogram) {
  const std::string label = "verb=\"" + std::string(sallyport::name(verb)) + "\"";
  uint64_t total = 0;
  for (size_t i = 0; i < Log2Histogram::BUCKETS; ++i) {
    total += histogram.counts()[i];
    const bool last = i + 1 == Log2Histogram::BUCKETS;
    const std::string bound = last ? "+Inf" : seconds((uint64_t{1} << i) * 1000);
    page.value(name + "_bucket", "{" + label + ",le=\"" + bound + "\"}", total);
  }
  page.value(name + "_sum", "{" + label + "}", seconds(histogram.sumNs()));
  page.value(name + "_count", "{" + label + "}", total);
}

void addTokens(Page& page, const Tokens& tokens) {
  const auto each = [&](std::string_view name, std::string_view kind, auto&& value) {
    page.type(name, kind);
    for (const auto& [token, facts] : tokens.all()) page.value(name, "{token=\"" + token + "\"}", value(*facts));
  };
  each("token_up", "gauge", [](const Token& token) { return uint64_t{token.up()}; });
  each("token_restarts_total", "counter", [](const Token& token) { return token.facts().restarts; });
  each("token_derived_total", "counter", [](const Token& token) { return token.facts().derived; });
  each("token_refused_total", "counter", [](const Token& token) { return token.facts().refused; });
  each("token_bad_results_total", "counter", [](const Token& token) { return token.facts().badResults; });
  each("token_denied_calls_total", "counter", [](const Token& token) { return token.facts().denials; });
}

}  // namespace

std::string metricsPage(const VaultState& state) {
  Page page;
  state.counters.forEach([&](std::string_view name, uint64_t value) {
    const std::string total = std::string(name) + "_total";
    page.type(total, "counter");
    page.value(total, "", value);
  });
  page.type("uses_total", "counter");
  for (const Verb verb : ALL_VERBS) {
    const VerbStats& stats = state.uses[verb];
    const std::string label = "{verb=\"" + std::string(name(verb)) + "\",outcome=\"";
    page.value("uses_total", label + "done\"}", stats.done);
    for (size_t i = 0; i < Counters::REFUSALS; ++i) {
      if (stats.refused[i] != 0)
        page.value("uses_total", label + std::string(Counters::nameOf(i)) + "\"}", stats.refused[i]);
    }
  }
  page.type("queue_seconds", "histogram");
  for (const Verb verb : ALL_VERBS) addHistogram(page, "queue_seconds", verb, state.uses[verb].queued);
  page.type("execution_seconds", "histogram");
  for (const Verb verb : ALL_VERBS) addHistogram(page, "execution_seconds", verb, state.uses[verb].executed);
  page.type("breakers_open", "gauge");
  page.value("breakers_open", "", state.breakers.openNow(state.nowMs()));
  page.type("shared_keys_cached", "gauge");
  page.value("shared_keys_cached", "", state.cache.size());
  page.type("key_locked", "gauge");
  for (const auto& [name, key] : state.keys.all()) {
    page.value("key_locked", "{key=\"" + name + "\"}", key->locked ? 1 : 0);
  }
  if (state.tokens != nullptr) addTokens(page, *state.tokens);
  return page.take();
}

}  // namespace sallyport::vaultd
