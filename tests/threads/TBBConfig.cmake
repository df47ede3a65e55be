# oneTBB's stand-in (tbb/parallel_for.h) under the name that find_package(TBB) gives to oneTBB. For -DTBB_DIR=tests/threads.
find_package(Threads REQUIRED)
add_library(TBB::tbb INTERFACE IMPORTED GLOBAL)
target_include_directories(TBB::tbb INTERFACE ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(TBB::tbb INTERFACE Threads::Threads)
