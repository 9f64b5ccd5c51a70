//! Images that are pulled and made.

use bytes::Bytes;
use runtime::{ErrorKind, NoProgress, Progress, Runtime};

use crate::support::{Agents, free_port};

/// Takes only what is said about a pull.
struct OfThePull;

impl Progress for OfThePull {
    fn report(&self, message: &str, _current: Option<u64>, _total: Option<u64>) {
        assert!(message.starts_with("pulling 127.0.0.1:"), "{message}");
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_says_why() {
    let Some(agents) = Agents::new().await else { return };
    // A registry on this machine that is not there, so that nothing leaves it.
    let image = format!("127.0.0.1:{}/berthold/no-such-image", free_port());
    let error = agents.docker.prepare_image(&image, &OfThePull).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Image, "{error}");
    assert!(error.message.contains("connection refused"), "{error}");
    let by_hand = format!("docker pull {image}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains(&by_hand)), "{error:?}");

    for wrong in ["Not An Image", "127.0.0.1:9/Upper/Case", "../containers", ""] {
        let error = agents.docker.prepare_image(wrong, &NoProgress).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Image, "{wrong}: {error}");
    }
    agents.docker.prepare_image(&agents.image, &NoProgress).await.expect("it is there");
}

#[tokio::test]
async fn images_can_be_made_from_an_archive() {
    let Some(agents) = Agents::new().await else { return };
    let image = format!("localhost/{}:imported", agents.name);
    assert!(!agents.docker.has_image(&image).await.unwrap());
    // Two blocks of zeros are an archive of no files.
    let archive = Bytes::from_static(&[0; 1024]);
    let changes = ["ENV GREETING=hello".to_owned(), r#"CMD ["greet"]"#.to_owned()];
    agents.docker.import_image(&image, &changes, archive.clone()).await.unwrap();
    assert!(agents.docker.has_image(&image).await.unwrap());
    let format = "{{json .Config.Env}} {{json .Config.Cmd}}";
    let shown = agents.command(&["image", "inspect", "--format", format, &image]);
    agents.command(&["image", "rm", &image]);
    assert!(shown.contains("GREETING=hello") && shown.contains(r#"["greet"]"#), "{shown}");

    assert!(agents.docker.import_image(&image, &["NONSENSE".to_owned()], archive).await.is_err());
}
