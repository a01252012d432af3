//! Laws that the object itself has to keep.

use router_tests::packets::kernel::object_path;

/// The kernel empties a program array when the last process that holds it goes, and stops a timer: the data path must
/// outlive the agent.
#[test]
fn the_object_has_no_program_array_and_no_timer() {
    let path = object_path().unwrap();
    let object = aya::Ebpf::load_file(&path);
    let object = object.unwrap();
    let types: Vec<_> = object
        .maps()
        .map(|(name, map)| {
            let map_type = match map {
                aya::maps::Map::ProgramArray(_) => "program array",
                _ => "other",
            };
            (name.to_owned(), map_type)
        })
        .collect();
    assert!(types.len() > 10, "{types:?}");
    assert!(types.iter().all(|(_, kind)| *kind != "program array"), "{types:?}");
    let names = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    assert!(names.contains("FLOWS4"), "the object's names are not to be read");
    for forbidden in ["bpf_timer", "tail_call"] {
        assert!(!names.contains(forbidden), "{forbidden}");
    }
}
