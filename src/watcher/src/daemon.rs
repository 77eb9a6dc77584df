use std::collections::HashMap;
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bollard::errors::Error as ApiError;
use bollard::{API_DEFAULT_VERSION, Docker};
use fairlead_contract::Docker as Settings;
use thiserror::Error;
use tokio::time::timeout;

use crate::container::{Container, Labels, read_one_by_one};
use crate::events::{Events, EventsError};
use crate::labels;

/// How long the daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

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

    /// Follows what happens at `since` or later, as far as a pass may have another result after it.
    pub(crate) async fn events(&self, since: SystemTime) -> Result<Events, DaemonError> {
        let subscription = timeout(LIMIT, Events::subscribe(&self.socket, since)).await;
        let socket = self.socket.clone();
        match subscription {
            Err(_) => Err(DaemonError::Silent(socket)),
            Ok(Err(source @ EventsError::Unreachable(_))) => Err(DaemonError::Unreachable {
                socket,
                source: source.into(),
            }),
            Ok(events) => events.map_err(|source| DaemonError::Refused {
                socket,
                source: source.into(),
            }),
        }
    }

    /// The client's own limit ends with the head of the answer.
    async fn within<T>(&self, answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, DaemonError> {
        match timeout(LIMIT, answer).await {
            Ok(answer) => answer.map_err(|error| DaemonError::of(&self.socket, error)),
            Err(_) => Err(DaemonError::Silent(self.socket.clone())),
        }
    }
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
