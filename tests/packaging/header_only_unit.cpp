// A unit that has the library's definitions itself; link_test.py links it with one that has not.
#include <tandem/core/random.hpp>

int draw();
int draw() { return static_cast<int>(tandem::Random(tandem::Seed{1}).below(2)); }
