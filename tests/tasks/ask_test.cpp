// Questions become statements, statements probabilities.
#include <catch2/catch.hpp>

#include <cmath>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/tasks/ask.hpp>

namespace td = tandem;
using Catch::Matchers::Contains;
using Texts = std::vector<std::string>;

TEST_CASE("a question becomes what a caption would say") {
    const auto texts = [](const char* question, const Texts& answers = {}) { return td::statements_of(question, answers).texts; };
    const auto kind = [](const char* question, const Texts& answers = {}) { return td::statements_of(question, answers).kind; };
    CHECK(texts("What colour is the car?", {"red", "orange"}) == Texts{"a red car", "an orange car"});
    CHECK(texts("what color are the old shoes", {"blue"}) == Texts{"blue old shoes"});
    CHECK(td::statements_of("What color is it?").answers.size() == 11);
    CHECK(texts("How many dogs are there?", {"one", "two"}) == Texts{"one dog", "two dogs"});
    CHECK(texts("how many glass are on the table?", {"1"}) == Texts{"1 glass"});
    CHECK(td::statements_of("How many dogs are there?").answers.back() == "ten");
    CHECK(texts("Is there a dog?") == Texts{"a picture of a dog", "a picture of something else"});
    CHECK(texts("Is the car red?")[0] == "the car is red");
    CHECK(texts("Are there any dogs?")[0] == "a picture of dogs");
    CHECK(texts("Is this a dog?")[0] == "this is a dog");
    CHECK(texts("Is the red car parked?")[0] == "the red car is parked");
    CHECK(texts("Is there a dog?", {"no", "yes"}) == Texts{"a picture of something else", "a picture of a dog"});
    CHECK(texts("Does the dog wear a hat?")[0] == "the dog wear a hat");
    CHECK(texts("Are people dancing?")[0] == "people are dancing");
    CHECK(texts("What is this?", {"apple", "dog"}) == Texts{"a picture of an apple", "a picture of a dog"});
    CHECK(texts("What animal is in the picture?", {"cat"}) == Texts{"a picture of a cat"});
    CHECK(texts("Where is the dog?", {"on a sofa", "outside"}) == Texts{"the dog on a sofa", "the dog outside"});
    CHECK(texts("What is the man holding?", {"a ball"}) == Texts{"the man holding a ball"});
    CHECK(kind("What colour is it?") == td::QuestionKind::colour);
    CHECK(kind("How many cats?") == td::QuestionKind::count);
    CHECK(kind("Is it day?") == td::QuestionKind::yes_no);
    CHECK(kind("Where is it?", {"inside"}) == td::QuestionKind::place);
    CHECK(kind("What is it?", {"dog"}) == td::QuestionKind::object);
    CHECK(kind("Why is it so?", {"luck"}) == td::QuestionKind::other);
    CHECK(td::name_of(td::QuestionKind::yes_no) == "yes or no");
    CHECK(td::name_of(td::QuestionKind::other) == "other");
}

TEST_CASE("a question that cannot be asked is named") {
    CHECK_THROWS_WITH(td::statements_of("?"), Contains("a question: expected words, found ?"));
    CHECK_THROWS_WITH(td::statements_of(""), Contains("found none"));
    CHECK_THROWS_WITH(td::statements_of("Is it a dog or a cat?"), Contains("one that yes or no answers, or answers to choose from"));
    CHECK_THROWS_WITH(td::statements_of("Is there a dog? Is there a cat?"), Contains("expected one alone"));
    CHECK_THROWS_WITH(td::statements_of("How many are there?"), Contains("what is to be counted"));
    CHECK_THROWS_WITH(td::statements_of("What is this?"), Contains("answers to choose from"));
    CHECK_THROWS_WITH(td::statements_of("What is this?", Texts{"dog", " "}), Contains("an answer: expected words"));
    CHECK_THROWS_WITH(td::answer_probabilities(std::vector<float>{1, 0}, std::vector<float>{1, 0, 1}, {}, 1), Contains("rows of width 2"));
}

TEST_CASE("what holds for every picture is no answer") {
    const std::vector<float> picture{0.6F, 0.8F}, statements{1, 0, 0, 1}, others{0, 1, 0, 1};
    const auto plain = td::answer_probabilities(picture, statements, {}, 10);
    CHECK(plain[1] == Approx(1 / (1 + std::exp(-2))));
    CHECK(plain[0] + plain[1] == Approx(1));
    // The second fits other pictures by 1, so that in this one it is 0.2 short.
    const auto fair = td::answer_probabilities(picture, statements, others, 10);
    CHECK(fair[0] == Approx(1 / (1 + std::exp(-8))));
}
