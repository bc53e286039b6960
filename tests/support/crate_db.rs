//! Which CrateDB the tests run: the stand-in, see `tests/stand_in`, or, where `TEST_CRATE_IMAGE` names
//! one, a real image (`make test-cratedb`).

use std::{path::Path, sync::OnceLock};

use super::engine::{import, stand_in_tar, try_docker};

/// Names the image of a real CrateDB.
pub const VARIABLE: &str = "TEST_CRATE_IMAGE";

/// What the stand-in's image has, as the official one.
const CHANGES: [&str; 7] = [
    r#"ENTRYPOINT ["/docker-entrypoint.sh"]"#,
    r#"CMD ["crate"]"#,
    "ENV PATH=/crate/bin:/usr/bin",
    "ENV CRATE_HEAP_SIZE=512M",
    "VOLUME /data",
    "WORKDIR /data",
    "EXPOSE 4200 4300 5432",
];

/// What CrateDB's bootstrap checks want of `docker run`, as our unit has it.
pub const ULIMITS: [&str; 3] = ["nofile=65536:65536", "nproc=4096:4096", "memlock=-1:-1"];

/// What they want of the machine.
pub const MAX_MAP_COUNT: &str = "262144";

/// What plays CrateDB.
pub enum CrateDb {
    /// The stand-in, which no registry is needed for.
    StandIn,
    /// This image, which the engine has.
    Image(String),
}

impl CrateDb {
    /// The one of this run.
    ///
    /// # Panics
    /// Where an image is named that the engine neither has nor can pull.
    pub fn of_this_run() -> &'static Self {
        static CHOSEN: OnceLock<CrateDb> = OnceLock::new();
        CHOSEN.get_or_init(|| match std::env::var(VARIABLE) {
            Err(_) => Self::StandIn,
            Ok(image) => {
                let had = try_docker(&["image", "inspect", "--format", "{{.Id}}", &image]);
                if let Err(error) = had.or_else(|_| try_docker(&["pull", "--quiet", &image])) {
                    panic!(
                        "the image {image} of CrateDB cannot be had here: this docker engine does not have it, and \
                         cannot pull it: {}",
                        error.trim()
                    );
                }
                Self::Image(image)
            }
        })
    }

    /// Holds that a test that steers the stand-in is run with it.
    ///
    /// # Panics
    /// With a real CrateDB.
    pub fn is_the_stand_in() {
        assert!(
            matches!(Self::of_this_run(), Self::StandIn),
            "this test steers the stand-in: unset {VARIABLE}"
        );
    }

    /// An image in this machine's engine, under `name` where it is made here. The stand-in says that it is
    /// of `version`, and is told that it has the limits that a machine gives which is set up for CrateDB.
    pub fn image(&self, name: &str, version: &str) -> String {
        match self {
            Self::Image(image) => image.clone(),
            Self::StandIn => {
                let mut changes = stand_in_changes(Some(version));
                changes.push(format!("ENV STAND_IN_MAX_MAP_COUNT={MAX_MAP_COUNT}"));
                changes.push("ENV STAND_IN_ULIMITS=nofile=1048576".to_owned());
                let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
                import(stand_in_tar(), name, &changes);
                name.to_owned()
            }
        }
    }
}

/// What `docker import` has to be told of the stand-in, and of CrateDB's version that it plays.
pub fn stand_in_changes(version: Option<&str>) -> Vec<String> {
    let mut changes: Vec<String> = CHANGES.map(str::to_owned).into();
    changes.extend(version.map(|version| format!("ENV STAND_IN_VERSION={version}")));
    changes
}

/// Where the programs of the stand-in's image are.
pub fn places(stand_in: &Path) -> [(&Path, &'static str); 3] {
    ["docker-entrypoint.sh", "crate/bin/crate", "usr/bin/curl"].map(|place| (stand_in, place))
}
