// Fits y = exp(a) · x^b through pairs "x y" on standard input by Eigen's least squares on logarithms, and prints a, b and
// their standard errors (NaN where two points leave none).
#include <cmath>
#include <cstdio>
#include <iostream>
#include <vector>

#include <Eigen/Dense>

int main() {
    std::vector<double> x, y;
    for (double a = 0, b = 0; std::cin >> a >> b;) {
        x.push_back(std::log(a));
        y.push_back(std::log(b));
    }
    const auto count = static_cast<Eigen::Index>(x.size());
    if (count < 2) {
        std::fprintf(stderr, "fit: expected 2 points or more, found %d\n", static_cast<int>(count));
        return 1;
    }
    Eigen::MatrixXd terms(count, 2);
    terms.col(0).setOnes();
    terms.col(1) = Eigen::Map<Eigen::VectorXd>(x.data(), count);
    const Eigen::Map<Eigen::VectorXd> values(y.data(), count);
    const Eigen::VectorXd found = terms.colPivHouseholderQr().solve(values);
    const double freedom = static_cast<double>(count - 2);
    const double variance = freedom > 0 ? (values - terms * found).squaredNorm() / freedom : std::nan("");
    const Eigen::MatrixXd spread = variance * (terms.transpose() * terms).inverse();
    std::printf("%.9g %.9g %.9g %.9g\n", found(0), found(1), std::sqrt(spread(0, 0)), std::sqrt(spread(1, 1)));
}
