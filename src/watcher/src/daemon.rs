use std::collections::{BTreeMap, HashMap};
use std::error::Error as StdError;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bollard::errors::Error as ApiError;
use bollard::query_parameters::ListContainersOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use fairlead_contract::Docker as Settings;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tokio::time::timeout;

use crate::container::{Container, Labels, State, read_one_by_one};
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

    /// Tells of the containers that run what routes depend on.
    pub(crate) async fn containers(&self, settings: &Settings) -> Result<Vec<Container>, DaemonError> {
        let mut containers = self.running_containers().await?;
        if !settings.image_labels {
            self.set_image_labels_aside(&mut containers).await?;
        }
        if containers
            .iter()
            .any(|container| labels::are_ours(&container.labels))
        {
            if settings.allow.iter().any(|rule| rule.image.is_some()) {
                self.name_images(&mut containers).await?;
            }
            self.mark_foreign_networks(&mut containers).await?;
        }
        Ok(containers)
    }

    /// Lists them, paused ones and those between two starts among them.
    async fn running_containers(&self) -> Result<Vec<Container>, DaemonError> {
        let List {
            mut containers,
            is_dockers,
        } = self.list(None).await?;
        if !is_dockers {
            self.add_what_podman_leaves_out(&mut containers).await?;
        }
        Ok(containers)
    }

    /// Podman's list has no paused containers and no health. Asked for either, it says who that is.
    async fn add_what_podman_leaves_out(&self, containers: &mut Vec<Container>) -> Result<(), DaemonError> {
        let paused = self.list(Some(("status", "paused"))).await?.containers;
        containers.retain(|container| !has(&paused, container));
        for (health, state) in [("starting", State::Starting), ("unhealthy", State::Unhealthy)] {
            let such = self.list(Some(("health", health))).await?.containers;
            for container in containers.iter_mut().filter(|container| has(&such, container)) {
                container.state = state.clone();
            }
        }
        containers.extend(paused);
        Ok(())
    }

    async fn list(&self, filter: Option<(&str, &str)>) -> Result<List, DaemonError> {
        let options = filter.map(|(key, value)| {
            let filters = HashMap::from([(key, vec![value])]);
            ListContainersOptionsBuilder::new().filters(&filters).build()
        });
        let list = async {
            match self.client.list_containers(options).await {
                Ok(summaries) => Ok(List {
                    is_dockers: summaries
                        .first()
                        .is_some_and(|summary| summary.host_config.is_some()),
                    containers: summaries.into_iter().map(Container::from).collect(),
                }),
                Err(ApiError::JsonDataError { contents, .. })
                    if let Some(containers) = read_one_by_one(&contents) =>
                {
                    Ok(List {
                        containers,
                        is_dockers: false,
                    })
                }
                Err(error) => Err(error),
            }
        };
        self.within(list).await
    }

    /// Tells the labels of `containers` that came with their images from those that count.
    ///
    /// Only images of labelled containers are asked for, each once. If one cannot be told about, nobody knows
    /// what came with it, and none of the labels counts.
    async fn set_image_labels_aside(&self, containers: &mut [Container]) -> Result<(), DaemonError> {
        let mut known: HashMap<String, Result<Labels, String>> = HashMap::new();
        for container in containers
            .iter_mut()
            .filter(|container| labels::are_ours(&container.labels))
        {
            let id = &container.image_id;
            if !known.contains_key(id) {
                known.insert(id.clone(), self.image_labels(id).await?);
            }
            match known.get(id) {
                Some(Ok(of_image)) => container.set_aside(of_image),
                Some(Err(reason)) => container.set_all_aside(reason),
                None => {}
            }
        }
        Ok(())
    }

    /// An error if the daemon cannot tell them.
    async fn image_labels(&self, id: &str) -> Result<Result<Labels, String>, DaemonError> {
        let image = self.about_one(self.client.inspect_image(id)).await?;
        Ok(image.and_then(|image| {
            let labels = image.pointer("/Config/Labels").cloned().unwrap_or_default();
            let labels: Option<Labels> = serde_json::from_value(labels).map_err(|error| error.to_string())?;
            Ok(labels.unwrap_or_default())
        }))
    }

    /// Gives the containers whose image has another name by now the one that they were made with.
    ///
    /// When a name is given to a newer image, Docker lists the containers of the older one with its id.
    async fn name_images(&self, containers: &mut [Container]) -> Result<(), DaemonError> {
        let is_nameless = |container: &&mut Container| {
            labels::are_ours(&container.labels) && container.image == container.image_id
        };
        for container in containers.iter_mut().filter(is_nameless) {
            let inspect = self.client.inspect_container(&container.id, None);
            // One that is gone by now is of no importance.
            let told = self.about_one(inspect).await?.unwrap_or_default();
            if let Some(name) = told.pointer("/Config/Image").and_then(Value::as_str) {
                name.clone_into(&mut container.image);
            }
        }
        Ok(())
    }

    /// Notes which networks of the containers this machine is not part of.
    async fn mark_foreign_networks(&self, containers: &mut [Container]) -> Result<(), DaemonError> {
        let networks = self.about_one(self.client.list_networks(None)).await?;
        let networks = networks.map_err(|refusal| DaemonError::Refused {
            socket: self.socket.clone(),
            source: refusal.into(),
        })?;
        let networks = networks.as_array().map(Vec::as_slice).unwrap_or_default();
        let drivers: BTreeMap<&str, &str> = networks
            .iter()
            .filter_map(|network| network["Name"].as_str().zip(network["Driver"].as_str()))
            .collect();
        for container in containers {
            container.reach.mark_foreign(&drivers);
        }
        Ok(())
    }

    /// What is told about one thing, whether or not it is all as Docker tells it; or the refusal, which
    /// concerns this thing alone.
    async fn about_one<T: Serialize>(
        &self,
        answer: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<Result<Value, String>, DaemonError> {
        let told = match self.within(async { Ok(answer.await) }).await? {
            Ok(told) => serde_json::to_value(told),
            Err(ApiError::JsonDataError { contents, .. }) => serde_json::from_str(&contents),
            Err(ApiError::DockerResponseServerError { message, .. }) => return Ok(Err(message)),
            Err(error) => return Err(DaemonError::of(&self.socket, error)),
        };
        Ok(told.map_err(|error| error.to_string()))
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

/// What the daemon listed.
struct List {
    containers: Vec<Container>,
    /// Whether it is known to be Docker's, which says of each container all that is needed.
    is_dockers: bool,
}

fn has(containers: &[Container], wanted: &Container) -> bool {
    containers.iter().any(|container| container.id == wanted.id)
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
            // It says so of a socket in a directory that is closed to us, too.
            ApiError::SocketNotFoundError(_) => {
                let reason = fs::metadata(&socket).err();
                Self::Unreachable {
                    source: reason.map_or_else(|| error.into(), Into::into),
                    socket,
                }
            }
            _ => Self::Refused {
                socket,
                source: error.into(),
            },
        }
    }
}
