// Goal: a list that owns nothing never points to what is gone, whoever dies first.
// Method: elements unlinked and destroyed at every place of a list, and lists destroyed under their elements.
#include "common/intrusive_list.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace sallyport {
namespace {

struct Element {
  explicit Element(int n) : number(n) {}
  int number;
  ListHook first;
  ListHook second;
};
using List = IntrusiveList<Element, &Element::first>;
using OtherList = IntrusiveList<Element, &Element::second>;

template <typename L>
std::vector<int> numbers(const L& list) {
  std::vector<int> result;
  for (const Element* e = list.front(); e != nullptr; e = list.next(*e)) result.push_back(e->number);
  return result;
}

TEST(AnIntrusiveList, KeepsTheOrderInWhichElementsCame) {
  List list;
  Element a(1), b(2), c(3);
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.front(), nullptr);
  list.pushBack(b);
  list.pushBack(a);
  list.pushBack(c);
  EXPECT_EQ(numbers(list), (std::vector{2, 1, 3}));
}

TEST(AnIntrusiveList, LosesAnElementThatDiesAnywhereInIt) {
  for (size_t dying = 0; dying < 3; ++dying) {
    List list;
    std::vector<std::unique_ptr<Element>> elements;
    std::vector<int> left;
    for (int i = 0; i < 3; ++i) {
      elements.push_back(std::make_unique<Element>(i));
      list.pushBack(*elements.back());
      if (i != static_cast<int>(dying)) left.push_back(i);
    }
    elements[dying] = nullptr;
    EXPECT_EQ(numbers(list), left);
  }
}

TEST(AnIntrusiveList, LetsAnUnlinkedElementComeBackAtTheEnd) {
  List list;
  Element a(1), b(2);
  list.pushBack(a);
  list.pushBack(b);
  a.first.unlink();
  EXPECT_FALSE(a.first.linked());
  a.first.unlink();  // once more does nothing
  EXPECT_EQ(numbers(list), (std::vector{2}));
  list.pushBack(a);
  EXPECT_EQ(numbers(list), (std::vector{2, 1}));
}

TEST(AnIntrusiveList, ThatDiesLeavesItsElementsFree) {
  Element a(1), b(2);
  {
    List list;
    list.pushBack(a);
    list.pushBack(b);
  }
  EXPECT_FALSE(a.first.linked());
  EXPECT_FALSE(b.first.linked());
  List next;
  next.pushBack(b);
  EXPECT_EQ(numbers(next), (std::vector{2}));
}

TEST(AnIntrusiveList, KnowsNothingOfTheElementsOtherHooks) {
  List list;
  OtherList other;
  Element a(1), b(2);
  list.pushBack(a);
  list.pushBack(b);
  other.pushBack(b);
  other.pushBack(a);
  b.first.unlink();
  EXPECT_EQ(numbers(list), (std::vector{1}));
  EXPECT_EQ(numbers(other), (std::vector{2, 1}));
}

TEST(AnIntrusiveListDeathTest, TakesNoElementTwice) {
  List list, another;
  Element a(1);
  list.pushBack(a);
  EXPECT_DEATH(list.pushBack(a), "invariant broken");
  EXPECT_DEATH(another.pushBack(a), "invariant broken");
}

}  // namespace
}  // namespace sallyport
