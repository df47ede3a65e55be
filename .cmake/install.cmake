# `cmake --install` in two components: library (headers, tandem::compiled, CMake package, pkg-config) and program (tandem with
# its manual pages and completions); and the two Debian packages that cpack makes of them.
include(CMakePackageConfigHelpers)
set(package_directory ${CMAKE_INSTALL_LIBDIR}/cmake/tandem)
install(TARGETS tandem EXPORT tandem-targets COMPONENT library)
install(EXPORT tandem-targets NAMESPACE tandem:: DESTINATION ${package_directory} COMPONENT library)
configure_package_config_file(.cmake/tandem-config.cmake.in tandem-config.cmake INSTALL_DESTINATION ${package_directory})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(tandem-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tandem-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/tandem-config-version.cmake
              .cmake/components.cmake
        DESTINATION ${package_directory} COMPONENT library)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT library)
install(DIRECTORY include/tandem DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library
        FILES_MATCHING PATTERN "*.hpp" PATTERN "*.ipp" PATTERN "*.cuh")

# What a program links that is not built with CMake: tandem.pc for header-only use, tandem-compiled.pc for the other.
# They find their prefix from where they lie, so that `cmake --install --prefix` may choose it.
file(RELATIVE_PATH tandem_up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
foreach(name IN ITEMS tandem tandem-compiled)
    if(name STREQUAL "tandem" OR TARGET tandem::compiled)
        configure_file(.cmake/${name}.pc.in ${name}.pc @ONLY)
        install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
    endif()
endforeach()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME tandem)
set(CPACK_PACKAGE_CONTACT "tandem developers <tandem@invalid>")
set(CPACK_PACKAGE_VENDOR tandem)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL library program)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME libtandem-dev)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_DEPENDS
    "libtbb-dev, libxsimd-dev, rapidjson-dev, libjpeg-dev, libpng-dev, libutf8proc-dev, zlib1g-dev, libwebp-dev, libhnswlib-dev, libnlopt-dev")
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "CLIP models as C++ types: headers, the compiled library, CMake package and pkg-config files.")
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME tandem)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SECTION graphics)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)
set(CPACK_COMPONENT_PROGRAM_DESCRIPTION "Embeds, labels and maps pictures and captions with any CLIP checkpoint, on the CPU.")
include(CPack)
