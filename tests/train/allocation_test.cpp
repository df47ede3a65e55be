// A warmed-up model neither allocates nor starts threads. The C library's allocation and thread functions are replaced
// by ones that count; sanitizers replace them themselves, and their builds only run the work.
#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <vector>

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

#include <tandem/models/clip.hpp>
#include <tandem/train/optimizer.hpp>

#include "toy.hpp"

namespace {

std::atomic<bool> counts = false;
std::atomic<int> allocations = 0, threads = 0;

}  // namespace

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void count_allocation() {
    if (counts) ++allocations;
}

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
    count_allocation();
    return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
    count_allocation();
    return __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) {
    count_allocation();
    return __libc_realloc(memory, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
    count_allocation();
    return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
    count_allocation();
    return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
    count_allocation();
    *memory = __libc_memalign(alignment, size);
    return *memory == nullptr ? 12 : 0;
}
void* mmap(void* address, std::size_t size, int protection, int flags, int file, off_t offset) {
    count_allocation();
    static const auto map = reinterpret_cast<decltype(&mmap)>(dlsym(RTLD_NEXT, "mmap"));
    return map(address, size, protection, flags, file, offset);
}
/// Large blocks share what was mapped before, and their pages go back when they are freed.
int madvise(void* address, std::size_t size, int advice) {
    count_allocation();
    static const auto advise = reinterpret_cast<decltype(&madvise)>(dlsym(RTLD_NEXT, "madvise"));
    return advise(address, size, advice);
}
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
    if (counts) ++threads;
    static const auto create = reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
    return create(thread, attributes, run, argument);
}
}
#endif

namespace {

namespace td = tandem;

struct Counted {
    int allocations, threads;
};

/// What body() allocates and starts once it has run a few times. Work is handed from thread to thread as it happens,
/// and each has memory of its own to fill: the least of several runs is what the work itself needs.
template <class Body>
Counted least(const Body& body) {
    for (int i = 0; i < 20; ++i) body();
    Counted found{1 << 30, 1 << 30};
    for (int i = 0; i < 20; ++i) {
        allocations = threads = 0;
        counts = true;
        body();
        counts = false;
        found.allocations = std::min<int>(found.allocations, allocations);
        found.threads = std::min<int>(found.threads, threads);
    }
    return found;
}

}  // namespace

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("the counters count", "[train]") {
    const Counted found = least([] {
        const td::Buffer<float> large(1 << 20);
        const std::vector<float> small(100);
        pthread_t thread;
        pthread_create(
            &thread, nullptr, [](void*) -> void* { return nullptr; }, nullptr);
        pthread_join(thread, nullptr);
    });
    CHECK(found.allocations >= 2);
    CHECK(found.threads == 1);
}
#endif

TEST_CASE("a warmed-up model encodes without allocating or starting threads", "[train]") {
    const toy::Model model{td::Seed{1}};
    td::Tensor<float, toy::Model::Vision::Input::shape> images(5);
    td::Tensor<td::Id, toy::Model::Text::Input::shape> ids(5);
    toy::Model::Embeddings embeddings(5);
    ids.fill(15);
    const Counted image = least([&] { model.encode_image(images, embeddings); });
    CHECK(image.allocations == 0);
    CHECK(image.threads == 0);
    const Counted text = least([&] { model.encode_text(ids, embeddings); });
    CHECK(text.allocations == 0);
    CHECK(text.threads == 0);
}

TEST_CASE("a warmed-up training step neither allocates nor starts threads", "[train]") {
    toy::Model model{td::Seed{1}}, gradient;
    td::AdamW::State<toy::Model> state;
    toy::Model::Workspace work;
    td::Tensor<float, toy::Model::Vision::Input::shape> images(5);
    td::Tensor<td::Id, toy::Model::Text::Input::shape> ids(5);
    td::Random random{td::Seed{2}};
    td::fill_normal(images, random, 1.0);
    for (std::size_t i = 0; i < 5; ++i) ids(i, 0) = static_cast<td::Id>(i), ids(i, 1) = 15;
    const Counted found = least([&] {
        td::zero_parameters(gradient);
        model.loss_and_gradient(images, ids, td::InfoNce{}, gradient, work);
        td::AdamW{}.update(model, gradient, state, 1e-4, 1.0 / td::gradient_norm(gradient));
        model.clamp_logit_scale();
    });
    CHECK(found.allocations == 0);
    CHECK(found.threads == 0);
}
