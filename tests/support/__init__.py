"""What several tests need: servers, projects, images, fakes that say so."""
