use crate::page::Section;

/// A file that people write, with the page of docs/ that describes it.
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The file of the page, as other pages link to it.
    file: &'static str,
    pub(crate) markdown: &'static str,
}

pub(crate) const FORMATS: [Format; 3] = [
    Format {
        name: "fairlead.toml",
        about: "the settings of fairlead",
        file: "settings.md",
        markdown: include_str!("../../../docs/settings.md"),
    },
    Format {
        name: "fairlead.route",
        about: "the routes of fairlead, in files and as labels of containers",
        file: "routes.md",
        markdown: include_str!("../../../docs/routes.md"),
    },
    Format {
        name: "fairlead.dns-services",
        about: "the services by which fairlead shows that names are yours",
        file: "dns-services.md",
        markdown: include_str!("../../../docs/dns-services.md"),
    },
];

/// How the manual names the page that a link leads to; `None` if that page is not in the manual.
pub(crate) fn reference(target: &str) -> Option<String> {
    FORMATS
        .iter()
        .find(|format| format.file == target)
        .map(|format| Section::Formats.reference(format.name))
}
