use std::collections::HashMap;
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error as ApiError;
use bollard::query_parameters::EventsOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use fairlead_contract::Docker as Settings;
use futures_util::{Stream, TryStreamExt};
use thiserror::Error;
use tokio::time::timeout;

use crate::container::{Container, Labels, read_one_by_one};
use crate::labels;

/// How long the daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// The events after which the running containers or their addresses may be others. What happens
/// inside a container (health checks run commands there every few seconds) is not among them.
const EVENTS: [&str; 8] = [
    "start",
    "die",
    "pause",
    "unpause",
    "rename",
    "connect",
    "disconnect",
    "health_status",
];

/// Docker's daemon behind its socket.
pub(crate) struct Daemon {
    socket: PathBuf,
    client: Docker,
}

impl Daemon {
    pub(crate) fn connect(settings: &Settings) -> Result<Self, DaemonError> {
        let socket = &settings.socket;
        let client =
            Docker::connect_with_unix(&socket.to_string_lossy(), LIMIT.as_secs(), API_DEFAULT_VERSION)
                .map_err(|error| DaemonError::of(socket, error))?;
        Ok(Self {
            socket: socket.clone(),
            client,
        })
    }

    /// Lists the containers that run, paused ones and those between two starts among them.
    pub(crate) async fn running_containers(&self) -> Result<Vec<Container>, DaemonError> {
        let list = async {
            match self.client.list_containers(None).await {
                Ok(summaries) => Ok(summaries.into_iter().map(Container::from).collect()),
                Err(ApiError::JsonDataError { contents, .. })
                    if let Some(list) = read_one_by_one(&contents) =>
                {
                    Ok(list)
                }
                Err(error) => Err(error),
            }
        };
        self.within(list).await
    }

    /// Tells the labels of `containers` that came with their images from those that count.
    ///
    /// Only images of labelled containers are asked for, each once. If one is gone, nobody knows what
    /// came with it, and none of the labels counts.
    pub(crate) async fn set_image_labels_aside(
        &self,
        containers: &mut [Container],
    ) -> Result<(), DaemonError> {
        let mut known: HashMap<String, Option<Labels>> = HashMap::new();
        for container in containers
            .iter_mut()
            .filter(|container| labels::are_ours(&container.labels))
        {
            let id = &container.image_id;
            if !known.contains_key(id) {
                known.insert(id.clone(), self.image_labels(id).await?);
            }
            let all = container.labels.clone();
            let of_image = known.get(id).and_then(Option::as_ref).unwrap_or(&all);
            container.set_aside(of_image);
        }
        Ok(())
    }

    /// `None` if there is no such image any more.
    async fn image_labels(&self, id: &str) -> Result<Option<Labels>, DaemonError> {
        let answer = timeout(LIMIT, self.client.inspect_image(id)).await;
        match answer.map_err(|_| DaemonError::Silent(self.socket.clone()))? {
            Ok(image) => {
                let labels = image.config.and_then(|config| config.labels).unwrap_or_default();
                Ok(Some(labels.into_iter().collect()))
            }
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(DaemonError::of(&self.socket, error)),
        }
    }

    pub(crate) async fn ping(&self) -> Result<(), DaemonError> {
        self.within(self.client.ping()).await.map(drop)
    }

    /// Something happens after which a pass may have another result, at `since` or later.
    pub(crate) fn events(&self, since: SystemTime) -> impl Stream<Item = Result<(), DaemonError>> {
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let options = EventsOptionsBuilder::new()
            .since(&format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
            .filters(&filters(&[
                ("type", &["container", "network"]),
                ("event", &EVENTS),
            ]))
            .build();
        self.client.events(Some(options)).map_ok(drop).map_err(|error| {
            match DaemonError::of(&self.socket, error) {
                DaemonError::Refused { socket, source } => DaemonError::BrokenOff { socket, source },
                error => error,
            }
        })
    }

    /// The client's own limit ends with the head of the answer.
    async fn within<T>(&self, answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, DaemonError> {
        match timeout(LIMIT, answer).await {
            Ok(answer) => answer.map_err(|error| DaemonError::of(&self.socket, error)),
            Err(_) => Err(DaemonError::Silent(self.socket.clone())),
        }
    }
}

fn filters<'a>(filters: &[(&'a str, &[&'a str])]) -> HashMap<&'a str, Vec<&'a str>> {
    filters
        .iter()
        .map(|(key, values)| (*key, values.to_vec()))
        .collect()
}

/// Docker did not say what it was asked. Not the same as saying that there is nothing.
#[derive(Debug, Error)]
pub(crate) enum DaemonError {
    #[error(
        "cannot reach Docker at {}: is it running, is this the right [docker] socket, and may this user open \
         it (group docker)?",
        socket.display()
    )]
    Unreachable {
        socket: PathBuf,
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("Docker at {} did not answer within {LIMIT:?}: see what it is doing", .0.display())]
    Silent(PathBuf),
    #[error("Docker at {} gave no answer that can be used", socket.display())]
    Refused {
        socket: PathBuf,
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("Docker at {} broke off the stream of events", socket.display())]
    BrokenOff {
        socket: PathBuf,
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl DaemonError {
    fn of(socket: &Path, error: ApiError) -> Self {
        let socket = socket.to_owned();
        match error {
            ApiError::RequestTimeoutError => Self::Silent(socket),
            ApiError::HyperLegacyError { err } if err.is_connect() => Self::Unreachable {
                socket,
                source: err.into(),
            },
            ApiError::SocketNotFoundError(_) => Self::Unreachable {
                socket,
                source: error.into(),
            },
            _ => Self::Refused {
                socket,
                source: error.into(),
            },
        }
    }
}
