// Fused rankings and queries by hand.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/tasks/fusion.hpp>
#include <tandem/tasks/query.hpp>

namespace td = tandem;

TEST_CASE("ranks are fused by their reciprocals") {
    const std::vector<std::vector<std::size_t>> rankings{{7, 3, 5}, {3, 9}};
    const auto fused = td::reciprocal_rank_fusion(rankings);
    REQUIRE(fused.size() == 4);
    CHECK(fused[0] == td::Ranked{3, 1.0 / 62 + 1.0 / 61});
    CHECK(fused[1] == td::Ranked{7, 1.0 / 61});
    CHECK(fused[2] == td::Ranked{9, 1.0 / 62});
    CHECK(fused[3] == td::Ranked{5, 1.0 / 63});
    CHECK(td::reciprocal_rank_fusion({}).empty());
}

TEST_CASE("nDCG by hand") {
    const std::vector<double> scores{0.1, 0.9, 0.5, 0.5};
    const std::vector<std::uint8_t> relevant{1, 0, 1, 0};
    // Order 1, 2, 3, 0: relevant at ranks 2 and 4; at best at 1 and 2.
    const double best = 1 + 1 / std::log2(3.0);
    CHECK(td::ndcg_at(scores, relevant, 10) == Approx((1 / std::log2(3.0) + 1 / std::log2(5.0)) / best));
    CHECK(td::ndcg_at(scores, relevant, 1) == 0);
    CHECK(td::ndcg_at(scores, relevant, 2) == Approx(1 / std::log2(3.0) / best));
    CHECK(td::ndcg_at(scores, std::vector<std::uint8_t>(4), 2) == 0);
    CHECK_THROWS_WITH(td::ndcg_at(scores, {}, 1), "ndcg_at: expected 4 labels, found 0");
}

TEST_CASE("the weight of a mixture is learned where both scores are needed") {
    std::vector<td::MixtureExample> examples;
    // The first score sees one of the relevant items, the second the other; each has a decoy that the other does not.
    examples.push_back({{0.9, 0.1, 0.8, 0.0}, {0.6, 0.9, 0.0, 0.7}, {1, 1, 0, 0}});
    const double weight = td::learn_mixture(examples, 2);
    CHECK(weight > 0);
    CHECK(weight < 1);
    CHECK(td::mixture_ndcg(examples, weight, 2) == 1);
    CHECK(td::mixture_ndcg(examples, 0, 2) < 1);
    CHECK(td::mixture_ndcg(examples, 1, 2) < 1);
    CHECK(td::learn_mixture(std::vector<td::MixtureExample>{{{1, 0}, {0, 1}, {1, 0}}}) < 0.5);
    CHECK(td::learn_mixture(std::vector<td::MixtureExample>{{{1, 0}, {0, 1}, {0, 1}}}) > 0.5);
    CHECK_THROWS_WITH(td::learn_mixture({}), "learn_mixture: expected examples to learn from, found none");
}

TEST_CASE("a query is read as terms") {
    using Terms = std::vector<td::QueryTerm>;
    CHECK(td::parse_query("a red car") == Terms{{1, "a red car"}});
    CHECK(td::parse_query("\"2:golden retriever\" + pool.jpg - fruit") ==
          Terms{{2, "golden retriever"}, {1, "pool.jpg"}, {-1, "fruit"}});
    CHECK(td::parse_query("2:golden retriever + ./pool.jpg") == Terms{{2, "golden retriever"}, {1, "./pool.jpg"}});
    CHECK(td::parse_query("- snow + 0.5:sea") == Terms{{-1, "snow"}, {0.5, "sea"}});
    CHECK(td::parse_query("t-shirt c++ x -y") == Terms{{1, "t-shirt c++ x -y"}});
    CHECK(td::parse_query("\"a + b\" - \"say \\\"no\\\"\"") == Terms{{1, "a + b"}, {-1, "say \"no\""}});
    CHECK(td::parse_query("12:30 on a clock") == Terms{{12, "30 on a clock"}});
    CHECK(td::parse_query("at 12:30") == Terms{{1, "at 12:30"}});
    CHECK(td::parse_query("-2:fruit") == Terms{{-2, "fruit"}});
    for (const char* const wrong : {"", "  ", "a +", "a + - b", "+", "\"a", "a - \"\"", "2:", "inf:a", "1e9:a"}) {
        INFO(wrong);
        CHECK_THROWS_AS(td::parse_query(wrong), td::Error);
    }
    CHECK_THROWS_WITH(td::parse_query("a +"), "query a +: expected a text or a picture for every term, found nothing");
}

TEST_CASE("terms are weighed, summed, and made of length 1") {
    const std::vector<td::QueryTerm> terms{{2, "a"}, {-1, "b"}};
    const std::vector<float> sum = td::combine(terms, std::vector<float>{1, 0, 0, 0, 1, 0});
    CHECK(sum[0] == Approx(2 / std::sqrt(5.0)));
    CHECK(sum[1] == Approx(-1 / std::sqrt(5.0)));
    CHECK(sum[2] == 0);
    CHECK_THROWS_WITH(td::combine(terms, std::vector<float>{1, 0, 2, 0}),
                      "combine: expected terms of which something is left, found terms that cancel each other");
    CHECK_THROWS_AS(td::combine(terms, std::vector<float>(3)), td::Error);
    CHECK_THROWS_AS(td::combine({}, {}), td::Error);
}
