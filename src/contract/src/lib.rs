//! The files fairlead's programs meet in: their places, their types, their checks and how they are
//! written.
//!
//! Nothing here is asynchronous or opens a socket. Reading ([`Files`]) is apart from judging
//! ([`Configuration::parse`]), so that every rule is a pure function of bytes.

mod chain;
mod challenge;
mod config;
mod configuration;
mod confinement;
mod cookie;
mod copy;
mod credential;
mod discovery;
mod dns;
mod dns_service;
mod document;
mod duration;
mod endpoint;
mod error_page;
mod file_name;
mod files;
mod health_check;
mod host;
mod hsts;
mod journal;
mod key_type;
mod ledger;
mod logging;
mod manager;
mod marks;
mod network;
mod orders;
mod path;
mod paths;
mod problem;
mod provider;
mod redirect;
mod route;
mod short_form;
mod shown;
mod size;
mod status;
mod subject;
mod template;
mod upstream;
mod words;
mod write;

pub use chain::chain;
pub use challenge::{Challenge, InvalidToken, Token};
pub use config::{AccessLog, Acme, Allow, Certificates, Config, Docker, ExternalAccount, Proxy};
pub use configuration::Configuration;
pub use confinement::Confinement;
pub use cookie::{CookieName, InvalidCookieName};
pub use copy::PairCopy;
pub use credential::{Credential, InvalidCredential, PasswordHash};
pub use discovery::{Discovery, Owner, Rejection};
pub use dns::{AcmeDns, Dns, DnsProvider, Exec, HttpReq, KeyAlgorithm, Rfc2136, SecretFile};
pub use dns_service::{DnsService, Need, ServiceAccount, Setting, SettingKind, SettingValue};
pub use duration::{InvalidLimit, Limit};
pub use endpoint::{Endpoint, FieldName, ForwardAuth, InvalidEndpoint};
pub use error_page::{ErrorPage, InvalidStatuses, Statuses};
pub use file_name::file_name;
pub use files::{Digest, FileError, Files, MAX_FILE_BYTES, PairFiles, read_file};
pub use health_check::{CheckPath, HealthCheck, InvalidCheckPath};
pub use host::{Host, HostPattern, InvalidHost};
pub use hsts::{Hsts, InvalidHsts};
pub use journal::{JOURNAL, JournalEntry, is_journal};
pub use key_type::KeyType;
pub use ledger::{Failure, Issued, Ledger, RenewalInfo, Window};
pub use logging::start_logging;
pub use manager::notify_manager;
pub use marks::want_certificates;
pub use network::{InvalidNetwork, Network};
pub use orders::Orders;
pub use path::{InvalidPath, PathPrefix, Scope};
pub use paths::{CertificateDir, Paths};
pub use problem::{Position, Problem};
pub use provider::{AuthorityName, InvalidAuthorityName, InvalidProvider, PairPaths, Provider};
pub use redirect::{InvalidStatus, InvalidTarget, Redirect, RedirectStatus, Target};
pub use route::{HeaderEdit, InvalidHeader, Located, PlainHttp, Route, Waiting};
pub use shown::{escaped, is_hidden};
pub use size::{InvalidSize, Size};
pub use status::{CheckReport, Loaded, Refusal, ReloadAnswer, Status};
pub use subject::Subject;
pub use template::{
    Destination, FileCheck, FileMode, InvalidDestination, InvalidFileCheck, InvalidFileMode,
    InvalidTemplateName, InvalidTemplateSource, InvalidUnitName, ReadyTemplate, Template, TemplateName,
    TemplateSource, UnitName,
};
pub use upstream::{
    Identity, InvalidUpstream, Protocol, ProxyProtocol, Upstream, UpstreamUrl, UpstreamWords, Weight,
};
pub use words::{InvalidWord, Words};
pub use write::{WriteError, Written, is_written, remove_if_present, remove_leftovers, write_atomically};
