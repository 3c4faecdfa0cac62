# Installs the library, its headers, the CMake package and the pkg-config file. Both find the rest
# by their own place, so the whole folder may be moved.

include(CMakePackageConfigHelpers)

install(FILES include/toolb.h bindings/cpp/toolb.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY bindings/cpp/toolb DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(
  FILES "${toolb_library}" "${toolb_library_dir}/${toolb_soname}"
        "${toolb_library_dir}/libtoolb.so" "${toolb_archive}"
  DESTINATION ${CMAKE_INSTALL_LIBDIR})

set(toolb_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/toolb")
configure_package_config_file(
  cmake/toolbConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/toolbConfig.cmake"
  INSTALL_DESTINATION ${toolb_package_dir}
  PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
# Until 1.0 a minor version may change what the one before promised.
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/toolbConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/toolbConfig.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/toolbConfigVersion.cmake"
        DESTINATION ${toolb_package_dir})

file(RELATIVE_PATH toolb_pc_prefix "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" toolb_pc_prefix "${toolb_pc_prefix}")
file(RELATIVE_PATH toolb_pc_libdir "${CMAKE_INSTALL_PREFIX}" "${CMAKE_INSTALL_FULL_LIBDIR}")
file(RELATIVE_PATH toolb_pc_includedir "${CMAKE_INSTALL_PREFIX}" "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
list(TRANSFORM toolb_archive_needs PREPEND "-l" OUTPUT_VARIABLE toolb_pc_private)
list(JOIN toolb_pc_private " " toolb_pc_private)
configure_file(cmake/toolb.pc.in toolb.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/toolb.pc"
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
