# The library, built by cargo, as the imported targets that a find_package would give, too.

find_program(TOOLB_CARGO cargo HINTS "$ENV{CARGO_HOME}/bin" "$ENV{HOME}/.cargo/bin"
             DOC "Builds the library")
if(NOT TOOLB_CARGO)
  message(FATAL_ERROR "toolb: cargo is needed to build the library and was not found; install it from "
                      "https://rustup.rs or pass -DTOOLB_CARGO=<path of cargo>")
endif()
if(DEFINED ENV{CARGO_TARGET_DIR})
  get_filename_component(toolb_target_dir "$ENV{CARGO_TARGET_DIR}" ABSOLUTE
                         BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
else()
  set(toolb_target_dir "${CMAKE_CURRENT_BINARY_DIR}/cargo")
endif()

set(TOOLB_CARGO_PROFILE release CACHE STRING "How cargo builds the library: release, or dev")
string(REGEX REPLACE "^dev$" "debug" toolb_profile_dir "${TOOLB_CARGO_PROFILE}")
set(toolb_built_dir "${toolb_target_dir}/${toolb_profile_dir}")

set(toolb_soname libtoolb.so.0)
set(toolb_library_dir "${CMAKE_CURRENT_BINARY_DIR}/lib")
set(toolb_library "${toolb_library_dir}/libtoolb.so.${PROJECT_VERSION}")
set(toolb_archive "${toolb_library_dir}/libtoolb.a")
# What Rust's standard library asks of the system, beside what every compiler driver adds anyway.
set(toolb_archive_needs m pthread dl rt util)
set(toolb_include_dir "${CMAKE_CURRENT_SOURCE_DIR}/include")
set(toolb_cpp_dir "${CMAKE_CURRENT_SOURCE_DIR}/bindings/cpp")

# What is installed has to be built; otherwise the library is built if something links to it.
if(TOOLB_INSTALL)
  set(toolb_cargo_all ALL)
endif()

# cargo knows best what is out of date, so it is asked at every build; a library that did not change
# keeps its time, and so nothing is linked anew. A make that runs this build is none of cargo's
# business: its jobs cannot be handed on through a custom target.
add_custom_target(
  toolb_cargo ${toolb_cargo_all}
  COMMAND
    ${CMAKE_COMMAND} -E env --unset=MAKEFLAGS --unset=MFLAGS "CARGO_TARGET_DIR=${toolb_target_dir}"
    ${TOOLB_CARGO} build --quiet --locked --profile ${TOOLB_CARGO_PROFILE} -p toolb-ffi
  COMMAND ${CMAKE_COMMAND} -E make_directory "${toolb_library_dir}"
  COMMAND ${CMAKE_COMMAND} -E copy_if_different "${toolb_built_dir}/libtoolb.so"
          "${toolb_library}"
  COMMAND ${CMAKE_COMMAND} -E copy_if_different "${toolb_built_dir}/libtoolb.a"
          "${toolb_archive}"
  COMMAND ${CMAKE_COMMAND} -E create_symlink libtoolb.so.${PROJECT_VERSION}
          "${toolb_library_dir}/${toolb_soname}"
  COMMAND ${CMAKE_COMMAND} -E create_symlink ${toolb_soname} "${toolb_library_dir}/libtoolb.so"
  BYPRODUCTS "${toolb_library}" "${toolb_archive}"
  WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
  COMMENT "Building libtoolb"
  USES_TERMINAL)

add_library(toolb::toolb SHARED IMPORTED GLOBAL)
set_target_properties(
  toolb::toolb PROPERTIES IMPORTED_LOCATION "${toolb_library}" IMPORTED_SONAME ${toolb_soname}
                          INTERFACE_INCLUDE_DIRECTORIES "${toolb_include_dir}")
add_library(toolb::static STATIC IMPORTED GLOBAL)
set_target_properties(
  toolb::static
  PROPERTIES IMPORTED_LOCATION "${toolb_archive}" IMPORTED_LINK_INTERFACE_LANGUAGES C
             INTERFACE_INCLUDE_DIRECTORIES "${toolb_include_dir};${toolb_cpp_dir}"
             INTERFACE_LINK_LIBRARIES "${toolb_archive_needs}")
add_library(toolb::cpp INTERFACE IMPORTED GLOBAL)
set_target_properties(
  toolb::cpp PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${toolb_cpp_dir}"
                        INTERFACE_COMPILE_FEATURES cxx_std_17
                        INTERFACE_LINK_LIBRARIES toolb::toolb)
add_dependencies(toolb::toolb toolb_cargo)
add_dependencies(toolb::static toolb_cargo)
